// Heat spreads over a plate, computed by the threads of OpenMP: loops, a reduction, tasks, an ordered section. What is printed does not
// depend on who computes what.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { SIZE = 700 };

static double plate[2][SIZE][SIZE];

static uint64_t walk(int depth, uint64_t seed)
{
    uint64_t left = 0, right = 0;
    if (depth == 0)
        return seed * 6364136223846793005u + 1442695040888963407u;
#pragma omp task shared(left) if (depth > 12)
    left = walk(depth - 1, 2 * seed);
#pragma omp task shared(right) if (depth > 12)
    right = walk(depth - 1, 2 * seed + 1);
#pragma omp taskwait
    return left ^ (right >> 1);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 10;
    for (int i = 0; i < SIZE; i++)
        plate[0][i][0] = plate[1][i][0] = 100;
    for (int round = 0; round < rounds; round++) {
        for (int step = 0; step < 40; step++) {
            double(*from)[SIZE] = plate[step % 2], (*to)[SIZE] = plate[1 - step % 2];
#pragma omp parallel for schedule(dynamic, 16)
            for (int y = 1; y < SIZE - 1; y++)
                for (int x = 1; x < SIZE - 1; x++)
                    to[y][x] = (from[y - 1][x] + from[y + 1][x] + from[y][x - 1] + from[y][x + 1]) / 4;
        }
        uint64_t total = 0, tree = 0;
#pragma omp parallel for reduction(+ : total)
        for (int y = 0; y < SIZE; y++)
            for (int x = 0; x < SIZE; x++)
                total += (uint64_t)(plate[0][y][x] * 1e9);
#pragma omp parallel
#pragma omp single
        tree = walk(15, round + 1);
        printf("round %d: %llu %llx\n", round, (unsigned long long)total, (unsigned long long)tree);
        fflush(stdout);
    }
}
