// Tests that memfds keep their permission bits, and the seal against executing them.
// @restored Shared memory: permission bits of a memfd, MFD_NOEXEC_SEAL, written to by a mapping afterwards
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

static mode_t mode_of(int fd) {
    struct stat stat;
    CHECK(fstat(fd, &stat) == 0);
    return stat.st_mode & 07777;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int plain = memfd_create("plain", MFD_ALLOW_SEALING), narrow = memfd_create("narrow", 0);
    CHECK(plain >= 0 && narrow >= 0 && ftruncate(plain, 4096) == 0 && ftruncate(narrow, 4096) == 0 && fchmod(narrow, 0640) == 0);
    // Linux 6.3.
    int sealed = memfd_create("sealed", MFD_NOEXEC_SEAL), has_seal = sealed >= 0;
    int seals = has_seal ? fcntl(sealed, F_GET_SEALS) : 0;
    mode_t plain_mode = mode_of(plain);
    volatile int *at = NULL;
    if (has_seal) {
        CHECK(ftruncate(sealed, 4096) == 0);
        at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, sealed, 0);
        CHECK(at != MAP_FAILED);
    }
    for (int round = 0; round < rounds; round++) {
        if (at) *at = round;
        rest();
        CHECK(mode_of(plain) == plain_mode && mode_of(narrow) == 0640);
        if (!has_seal) continue;
        CHECK(*at == round && mode_of(sealed) == 0666 && fcntl(sealed, F_GET_SEALS) == seals);
        CHECK(pwrite(sealed, &round, sizeof round, 8) == sizeof round && at[2] == round);
        CHECK(fchmod(sealed, 0777) == -1 && errno == EPERM);
    }
    puts("as it was made");
}
