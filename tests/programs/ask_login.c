// Tests, with own_preload.c, which library answers: it asks once now and once after a while, itself and through a child.
#include "check.h"

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    const char *name = getlogin();
    printf("%s\n", name ? name : "nobody");
    fflush(stdout);
    for (int round = 0; round < rounds; round++) rest();
    name = getlogin();
    printf("%s\n", name ? name : "nobody");
    fflush(stdout);
    if (argc > 2) execl("/proc/self/exe", argv[0], "1", NULL);
    return 0;
}
