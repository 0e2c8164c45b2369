// Tests that named POSIX semaphores keep values, waiters and names: the same for those who have them open and those who open them later.
// @restored POSIX semaphores: named ones with value, name and waiters; unnamed ones in shared memory; removed names
#include "check.h"
#include <fcntl.h>
#include <semaphore.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    char name[3][40];
    sem_t *turn[3];
    for (int i = 0; i < 3; i++) {
        // Names end with the second argument, if there is one.
        sprintf(name[i], "/ckpt-sem%d-%d%s", i, argv[2] ? 0 : getpid(), argv[2] ? argv[2] : "");
        turn[i] = sem_open(name[i], O_CREAT | O_EXCL, 0600, i == 0);
        CHECK(turn[i] != SEM_FAILED);
    }
    CHECK(sem_unlink(name[2]) == 0);
    sem_t *unnamed = mmap(NULL, sizeof *unnamed, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(unnamed != MAP_FAILED && sem_init(unnamed, 1, 3) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    int me = child == 0;
    for (int round = 0; round < rounds; round++) {
        CHECK(sem_wait(turn[me]) == 0);
        int value;
        CHECK(sem_getvalue(unnamed, &value) == 0 && value == 3);
        CHECK(sem_wait(unnamed) == 0);
        rest();
        CHECK(sem_post(unnamed) == 0 && sem_post(turn[2]) == 0 && sem_wait(turn[2]) == 0);
        // Whoever opens the other's now has the same one.
        sem_t *other = sem_open(name[!me], 0);
        CHECK(other != SEM_FAILED && sem_post(other) == 0 && sem_close(other) == 0);
    }
    if (me) _exit(0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(sem_unlink(name[0]) == 0 && sem_unlink(name[1]) == 0);
    puts("each waited its turn");
}
