// Tests that System V shared memory keeps ids, keys, contents, permissions and attachments: removed, read-only, in parts, attached by nobody.
// @restored System V shared memory: id, key, size, contents, owner, permissions, attachments and their number, SHM_RDONLY, parts of an attachment, segments without attachments, removed segments
// @refused System V shared memory: segments that the job did not make, or that processes outside of the job have attached too (they stay with those)
// @not-kept System V shared memory: creator and last user (cpid, lpid), times: only the kernel writes them
#include "check.h"
#include <sys/ipc.h>
#include <sys/shm.h>

enum { PAGE = 4096, SIZE = 3 * PAGE + 100 };

static struct shmid_ds status(int id) {
    struct shmid_ds now;
    CHECK(shmctl(id, IPC_STAT, &now) == 0);
    return now;
}

static void *attach(int id, int flags) {
    void *at = shmat(id, NULL, flags);
    CHECK(at != (void *)-1);
    return at;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    key_t key = (key_t)(0x5a000000 + getpid());
    // Numbers before it, which are free again.
    for (int i = 0; i < 3; i++) CHECK(shmctl(shmget(IPC_PRIVATE, PAGE, 0600), IPC_RMID, NULL) == 0);
    int common = shmget(key, SIZE, IPC_CREAT | IPC_EXCL | 0640);
    int removed = shmget(IPC_PRIVATE, SIZE, 0600), alone = shmget(IPC_PRIVATE, SIZE, 0600), parts = shmget(IPC_PRIVATE, 8 * PAGE, 0600);
    CHECK(common >= 0 && removed >= 0 && alone >= 0 && parts >= 0);
    volatile int *shared = attach(common, 0);
    unsigned char *hidden = attach(removed, 0), *view = attach(common, SHM_RDONLY), *block = attach(parts, 0), *store = attach(alone, 0);
    CHECK(shmctl(removed, IPC_RMID, NULL) == 0);
    fill(hidden, SIZE, 1);
    fill(store, SIZE, 2);
    fill(block, 8 * PAGE, 3);
    CHECK(shmdt(store) == 0);
    // A hole, a page that cannot be read, and the rest as it was: three mappings of one attachment.
    CHECK(munmap(block + PAGE, PAGE) == 0 && mprotect(block + 4 * PAGE, PAGE, PROT_NONE) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    int me = child == 0;
    for (int round = 0; round < rounds; round++) {
        while (shared[0] != 2 * round + me) usleep(200);
        fill((unsigned char *)shared + PAGE, 100, (unsigned)round);
        CHECK(holds(view + PAGE, 100, (unsigned)round));
        shared[0] = 2 * round + me + 1;
        if (!me) rest();
        struct shmid_ds now = status(common);
        CHECK(now.shm_segsz == SIZE && now.shm_nattch == 4 && (now.shm_perm.mode & 0777) == 0640 && now.shm_perm.__key == key);
        CHECK(now.shm_perm.uid == geteuid() && now.shm_perm.cgid == getegid());
        now = status(removed);
        CHECK(now.shm_nattch == 2 && (now.shm_perm.mode & SHM_DEST));
        now = status(alone);
        CHECK(now.shm_segsz == SIZE && (now.shm_perm.mode & 0777) == 0600 && now.shm_nattch <= 1);
        CHECK(status(parts).shm_nattch == 8);
        CHECK(shmget(key, 0, 0) == common && shmget(key, SIZE, IPC_CREAT | IPC_EXCL | 0600) == -1);
        CHECK(holds(hidden, SIZE, 1) && holds(block, PAGE, 3));
        if (round % 20 == me * 10) {
            CHECK((store = attach(alone, SHM_RDONLY)) && holds(store, SIZE, 2) && shmdt(store) == 0);
            CHECK(mprotect(view, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
        }
    }
    // Nobody leaves before both have looked.
    shared[1 + me] = 1;
    while (!shared[2 - me]) usleep(200);
    CHECK(mprotect(block + 4 * PAGE, PAGE, PROT_READ) == 0);
    for (size_t at = 2 * PAGE; at < 8 * PAGE; at++) CHECK(block[at] == pattern(3, at));
    CHECK(mmap(block + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == block + PAGE);
    if (me) _exit(0);
    int ended;
    CHECK(waitpid(child, &ended, 0) == child && ended == 0);
    CHECK(status(common).shm_nattch == 2 && status(removed).shm_nattch == 1);
    CHECK(shmdt((void *)view) == 0 && shmdt((void *)shared) == 0 && shmdt(hidden) == 0);
    CHECK(shmctl(removed, IPC_STAT, &(struct shmid_ds){0}) == -1);
    CHECK(shmctl(common, IPC_RMID, NULL) == 0 && shmctl(alone, IPC_RMID, NULL) == 0 && shmctl(parts, IPC_RMID, NULL) == 0);
    puts("all attached as it was");
}
