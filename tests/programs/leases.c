// Tests that leases stay, and that their owner is told when somebody opens the file.
// @restored Leases: read and write leases (F_SETLEASE), their owner and signal
// @refused Leases: a lease that is being broken (its holder has not released it yet), delegations
#include "check.h"
#include <fcntl.h>

static volatile sig_atomic_t breaks, broken_fd;

static void on_break(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    breaks++;
    broken_fd = info->si_fd;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    struct sigaction action = {.sa_sigaction = on_break, .sa_flags = SA_SIGINFO | SA_RESTART};
    CHECK(sigaction(SIGRTMIN + 3, &action, NULL) == 0);
    int file = open("leased", O_RDWR | O_CREAT, 0600), reader = open("read", O_RDONLY | O_CREAT, 0600);
    CHECK(file >= 0 && reader >= 0);
    CHECK(fcntl(file, F_SETSIG, SIGRTMIN + 3) == 0 && fcntl(file, F_SETLEASE, F_WRLCK) == 0);
    CHECK(fcntl(reader, F_SETSIG, SIGRTMIN + 3) == 0 && fcntl(reader, F_SETLEASE, F_RDLCK) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(fcntl(file, F_GETLEASE) == F_WRLCK && fcntl(reader, F_GETLEASE) == F_RDLCK && breaks == 0);
        CHECK(fcntl(file, F_GETSIG) == SIGRTMIN + 3 && fcntl(file, F_GETOWN) == getpid());
        // To read what is leased for reading breaks nothing.
        int other = open("read", O_RDONLY);
        CHECK(other >= 0 && close(other) == 0);
        rest();
    }
    CHECK(open("leased", O_RDONLY | O_NONBLOCK) == -1 && errno == EWOULDBLOCK && breaks == 1 && broken_fd == file);
    CHECK(fcntl(file, F_SETLEASE, F_UNLCK) == 0);
    CHECK(open("read", O_WRONLY | O_NONBLOCK) == -1 && errno == EWOULDBLOCK && breaks == 2 && broken_fd == reader);
    CHECK(fcntl(reader, F_SETLEASE, F_UNLCK) == 0);
    int other = open("leased", O_RDWR);
    CHECK(other >= 0 && unlink("leased") == 0 && unlink("read") == 0);
    puts("leases hold");
}
