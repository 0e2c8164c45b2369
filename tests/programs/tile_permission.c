// Tests that a process may use the tile registers of AMX that it has asked for, though it has not used them yet.
// @restored Threads: the permission to use AMX tile registers (arch_prctl ARCH_REQ_XCOMP_PERM), used or not
#include "check.h"

enum { GET_PERMISSION = 0x1022, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };

static int permitted(void) {
    unsigned long components;
    CHECK(syscall(SYS_arch_prctl, GET_PERMISSION, &components) == 0);
    return components >> TILE_DATA & 1;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    CHECK(!permitted() && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(permitted());
    }
    puts("still permitted");
}
