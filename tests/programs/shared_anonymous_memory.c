// Tests that anonymous memory shared over fork stays one memory: parent and child count in turns, by futex and by semaphore.
// @restored Memory: shared anonymous memory, with futexes and semaphores in it
// @not-kept Memory: parts of shared anonymous memory that no process maps (only remap_file_pages(2), or mremap(2) of a shrunk mapping, would show them again)
#include "check.h"
#include <linux/futex.h>
#include <semaphore.h>

enum { SIZE = 1 << 16 };
struct shared {
    sem_t turn[2];
    uint32_t word;
    int count;
    char block[SIZE];
};

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    CHECK(sem_init(&shared->turn[0], 1, 1) == 0 && sem_init(&shared->turn[1], 1, 0) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    int me = child == 0;
    for (int round = 0; round < rounds; round++) {
        CHECK(sem_wait(&shared->turn[me]) == 0);
        CHECK(shared->count == 2 * round + me);
        CHECK(shared->count == 0 || holds(shared->block, SIZE, (unsigned)shared->count));
        shared->count++;
        fill(shared->block, SIZE, (unsigned)shared->count);
        if (me) rest();
        CHECK(sem_post(&shared->turn[!me]) == 0);
    }
    // The word is a futex that both wait on by its place in the shared memory, not in their own.
    if (me) {
        rest();
        __atomic_store_n(&shared->word, 1, __ATOMIC_SEQ_CST);
        CHECK(syscall(SYS_futex, &shared->word, FUTEX_WAKE, 1, NULL, NULL, 0) >= 0);
        _exit(9);
    }
    while (__atomic_load_n(&shared->word, __ATOMIC_SEQ_CST) == 0)
        CHECK(syscall(SYS_futex, &shared->word, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 || errno == EAGAIN);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 9);
    CHECK(shared->count == 2 * rounds);
    puts("both saw one memory");
}
