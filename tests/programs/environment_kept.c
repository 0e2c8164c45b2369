// Tests that the environment and the auxiliary vector are where /proc says, and that both survive exec through `env -i`.
// @restored Process: arguments, environment and auxiliary vector as /proc shows them
#include "check.h"
#include <sys/auxv.h>

extern char **environ;

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    CHECK(setenv("OURS", "kept", 1) == 0);
    unsigned long random = getauxval(AT_RANDOM), page = getauxval(AT_PAGESZ);
    uint64_t seed = *(uint64_t *)random;
    for (int round = 0; round < rounds; round++) {
        CHECK(strcmp(getenv("OURS"), "kept") == 0);
        CHECK(getauxval(AT_RANDOM) == random && getauxval(AT_PAGESZ) == page && *(uint64_t *)random == seed);
        FILE *vector = fopen("/proc/self/auxv", "r");
        unsigned long pair[2];
        int seen = 0;
        CHECK(vector);
        while (fread(pair, sizeof pair, 1, vector) == 1)
            if (pair[0] == AT_RANDOM) seen = pair[1] == random;
        CHECK(seen && fclose(vector) == 0);
        FILE *environment = fopen("/proc/self/environ", "r");
        CHECK(environment && fgetc(environment) != EOF && fclose(environment) == 0);
        rest();
    }
    puts("the environment stayed");
}
