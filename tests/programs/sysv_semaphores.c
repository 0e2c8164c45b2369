// Tests that System V semaphores keep ids, keys, values, permissions, who used them last, and what is undone at the end of a process.
// @restored System V semaphores: id, key, values, owner, permissions, waiting processes, SEM_UNDO adjustments of each process, whether semop was ever called (sem_otime), the last user (sempid) if that process lives
// @refused System V semaphores: sets that the job did not make and has used; SEM_UNDO of a process with a seccomp filter (it cannot make calls for the coordinator)
// @not-kept System V semaphores: an owner other than the creator, if the restart has a user namespace (the creator owns them then)
// @not-kept System V semaphores: times, and sempid of a process that has ended (it becomes the launcher's): only the kernel writes them
#include "check.h"
#include <sys/ipc.h>
#include <sys/sem.h>

static int change(int set, unsigned short number, short by, short flags) {
    struct sembuf step = {number, by, flags};
    return semop(set, &step, 1);
}

static int value(int set, int number) { return semctl(set, number, GETVAL); }

static void *wait_for_it(void *set) {
    CHECK(change(*(int *)set, 5, -7, 0) == 0);
    return NULL;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    key_t key = (key_t)(0x5b000000 + getpid());
    for (int i = 0; i < 3; i++) CHECK(semctl(semget(IPC_PRIVATE, 1, 0600), 0, IPC_RMID) == 0);
    int set = semget(key, 9, IPC_CREAT | IPC_EXCL | 0640), fresh = semget(IPC_PRIVATE, 2, 0600);
    CHECK(set >= 0 && fresh >= 0);
    // Given to another user, whom a restart in a user namespace does not know.
    int given = semget(IPC_PRIVATE, 1, 0600);
    struct semid_ds owner;
    CHECK(given >= 0 && semctl(given, 0, IPC_STAT, &owner) == 0);
    owner.sem_perm.uid = 31111;
    (void)semctl(given, 0, IPC_SET, &owner);
    unsigned short values[9] = {1, 0, 32767, 10, 0, 0, 0, 0, 3};
    CHECK(semctl(set, 0, SETALL, values) == 0);
    // A lock that is freed when its holder dies, one of both directions, and a thread that waits for as long as it takes.
    pthread_t waiter;
    CHECK(pthread_create(&waiter, NULL, wait_for_it, &set) == 0);
    CHECK(change(set, 3, -4, SEM_UNDO) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(change(set, 3, -2, SEM_UNDO) == 0 && change(set, 4, 6, SEM_UNDO) == 0 && change(set, 8, -3, SEM_UNDO) == 0);
        CHECK(change(set, 6, 1, 0) == 0);
        for (;;) pause();
    }
    pid_t partner = fork();
    CHECK(partner >= 0);
    if (partner == 0) {
        for (int round = 0; round < rounds; round++) CHECK(change(set, 0, -1, SEM_UNDO) == 0 && change(set, 0, 0, 0) == 0 && change(set, 1, 1, 0) == 0 && change(set, 0, 1, SEM_UNDO) == 0 && change(set, 7, -1, 0) == 0);
        _exit(0);
    }
    while (semctl(set, 6, GETPID) != child) usleep(1000);
    for (int round = 0; round < rounds; round++) {
        CHECK(change(set, 1, -1, 0) == 0);
        rest();
        struct semid_ds now;
        CHECK(semctl(set, 0, IPC_STAT, &now) == 0);
        CHECK(now.sem_nsems == 9 && (now.sem_perm.mode & 0777) == 0640 && now.sem_perm.__key == key && now.sem_otime != 0);
        CHECK(now.sem_perm.uid == geteuid() && now.sem_perm.cgid == getegid() && semget(key, 9, 0) == set);
        CHECK(semctl(fresh, 0, IPC_STAT, &now) == 0 && now.sem_otime == 0 && semctl(fresh, 1, GETPID) == 0);
        CHECK(value(set, 2) == 32767 && value(set, 3) == 4 && value(set, 4) == 6 && value(set, 8) == 0);
        CHECK(semctl(set, 6, GETPID) == child && semctl(set, 2, GETPID) == getpid());
        CHECK(value(set, 0) == 1 || value(set, 0) == 0);
        // The waiter's call may be being made again at this moment.
        for (int tries = 0; semctl(set, 5, GETNCNT) != 1; tries++) CHECK(tries < 1000 && usleep(1000) == 0);
        CHECK(change(set, 7, 1, 0) == 0);
    }
    int status;
    CHECK(waitpid(partner, &status, 0) == partner && status == 0 && value(set, 0) == 1);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
    CHECK(value(set, 3) == 6 && value(set, 4) == 0 && value(set, 8) == 3);
    CHECK(change(set, 5, 7, 0) == 0 && pthread_join(waiter, NULL) == 0 && value(set, 5) == 0);
    CHECK(semctl(set, 0, IPC_RMID) == 0 && semctl(fresh, 0, IPC_RMID) == 0);
    CHECK(semctl(given, 0, GETVAL) == 0 && semctl(given, 0, IPC_RMID) == 0);
    puts("all counted");
}
