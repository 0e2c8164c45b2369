// A ring of ranks: each adds its rank to a sum that goes round, ROUNDS times (default 36000), every 0.1 s.
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    const char *rounds = getenv("ROUNDS");
    long sum = 0;
    for (int round = 1; round <= (rounds ? atoi(rounds) : 36000); round++) {
        usleep(100 * 1000);
        long mine = sum + rank + round;
        MPI_Allreduce(&mine, &sum, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
        sum %= 1000003;
        if (rank == 0) {
            printf("round %d: %ld\n", round, sum);
            fflush(stdout);
        }
    }
    MPI_Finalize();
    return 0;
}
