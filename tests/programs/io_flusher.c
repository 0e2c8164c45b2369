// Tests that a process that takes part in writing to a disk stays marked as such. Only CAP_SYS_RESOURCE may ask and set.
// @restored Process: PR_SET_IO_FLUSHER, if the user of the restart has CAP_SYS_RESOURCE
#include "check.h"
#include <sys/prctl.h>

enum { SET_IO_FLUSHER = 57, GET_IO_FLUSHER = 58 };

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    CHECK(prctl(SET_IO_FLUSHER, 1, 0, 0, 0) == 0);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(prctl(GET_IO_FLUSHER, 0, 0, 0, 0) == 1);
    }
    puts("still a flusher");
}
