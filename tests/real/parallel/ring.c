// Ranks of MPI that send each other small and large messages, wait for them in every way, reduce, and share a window of memory. What is
// printed does not depend on when it is computed.
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { LARGE = 1 << 16, SMALL = 16 };

static uint64_t large[LARGE], received[LARGE], small[SMALL], answers[SMALL];

static void must(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "wrong: %s\n", what);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 10, rank, size;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int next = (rank + 1) % size, previous = (rank + size - 1) % size;

    MPI_Win window;
    volatile uint64_t *own, *of_next;
    MPI_Win_allocate_shared(sizeof *own, sizeof *own, MPI_INFO_NULL, MPI_COMM_WORLD, &own, &window);
    MPI_Aint bytes;
    int unit;
    MPI_Win_shared_query(window, next, &bytes, &unit, &of_next);
    MPI_Win_lock_all(MPI_MODE_NOCHECK, window);
    *own = 0;
    MPI_Barrier(MPI_COMM_WORLD);

    for (uint64_t round = 0; round < (uint64_t)rounds; round++) {
        for (uint64_t i = 0; i < LARGE; i++)
            large[i] = (i + 1) * (round + 7) * (uint64_t)(rank + 1) * 2654435761u;
        for (int turn = 0; turn < 10; turn++) {
            MPI_Sendrecv(large, LARGE, MPI_UINT64_T, next, 1, received, LARGE, MPI_UINT64_T, previous, 1, MPI_COMM_WORLD,
                         MPI_STATUS_IGNORE);
            for (int i = 0; i < LARGE; i++)
                large[i] = received[i] ^ (received[i] << 13) ^ (received[i] >> 7);
        }
        MPI_Request requests[2 * SMALL];
        MPI_Status statuses[2 * SMALL];
        for (int i = 0; i < SMALL; i++) {
            small[i] = large[i] + round;
            MPI_Irecv(&answers[i], 1, MPI_UINT64_T, previous, 100 + i, MPI_COMM_WORLD, &requests[i]);
        }
        for (int i = 0; i < SMALL; i++)
            MPI_Isend(&small[i], 1, MPI_UINT64_T, next, 100 + i, MPI_COMM_WORLD, &requests[SMALL + i]);
        MPI_Waitall(2 * SMALL, requests, statuses);

        uint64_t part = 0, whole = 0;
        for (int i = 0; i < LARGE; i++)
            part += large[i] * (uint64_t)(i | 1);
        for (int i = 0; i < SMALL; i++)
            part ^= answers[i];
        MPI_Allreduce(&part, &whole, 1, MPI_UINT64_T, MPI_BXOR, MPI_COMM_WORLD);

        *own = round + 1;
        MPI_Win_sync(window);
        MPI_Barrier(MPI_COMM_WORLD);
        MPI_Win_sync(window);
        must(*of_next == round + 1, "what the next rank wrote to the shared window");
        MPI_Barrier(MPI_COMM_WORLD);
        if (rank == 0 && round % 10 == 9) {
            printf("round %llu: %016llx\n", (unsigned long long)round, (unsigned long long)whole);
            fflush(stdout);
        }
    }
    MPI_Win_unlock_all(window);
    MPI_Win_free(&window);
    MPI_Finalize();
}
