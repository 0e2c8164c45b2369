// Tests that a restart makes many sockets, each in a child that has its maker's number for a moment, and takes no such child's end for
// the end of the process whose number it has.
// @restored UNIX sockets: hundreds of pairs, each with its creator and its bytes in flight
#include "socket.h"

#define PAIRS 400

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    static int pairs[PAIRS][2];
    for (int i = 0; i < PAIRS; i++) CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]) == 0);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < PAIRS; i++) CHECK(send(pairs[i][0], &round, sizeof round, 0) == sizeof round);
        rest();
        for (int i = 0; i < PAIRS; i++) {
            int got;
            struct ucred credentials;
            socklen_t length = sizeof credentials;
            CHECK(recv(pairs[i][1], &got, sizeof got, 0) == sizeof got && got == round);
            CHECK(getsockopt(pairs[i][1], SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0 && credentials.pid == getpid());
        }
    }
    puts("every pair kept its maker and its bytes");
    return 0;
}
