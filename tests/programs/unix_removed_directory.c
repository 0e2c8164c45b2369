// Tests that a listening socket in a directory that the job has made comes back when the job has removed both since.
// Before the name is bound and after it is closed, nobody has the directories open: then they are as the killed run has left them.
// @restored UNIX sockets: names in directories that the job made and that are gone at a restart, together with the socket
#include "socket.h"
#include <sys/stat.h>
#include <sys/un.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    for (int round = 0; round < rounds; round++) {
        char outer[] = "socketsXXXXXX", inner[40];
        CHECK(mkdtemp(outer) && snprintf(inner, sizeof inner, "%s/deep", outer) > 0);
        CHECK(mkdir(inner, 0700) == 0 || errno == ENOENT);
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        CHECK(snprintf(name.sun_path, sizeof name.sun_path, "%s/socket", inner) > 0);
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(listener >= 0 && client >= 0);
        // A run that was killed may have left it.
        CHECK(unlink(name.sun_path) == 0 || errno == ENOENT);
        if (bind(listener, (struct sockaddr *)&name, sizeof name) != 0) {
            CHECK(errno == ENOENT && close(listener) == 0 && close(client) == 0);
            continue;
        }
        CHECK(listen(listener, 3) == 0);
        rest();
        CHECK(connect(client, (struct sockaddr *)&name, sizeof name) == 0);
        int server = accept(listener, NULL, NULL);
        char byte = 0;
        CHECK(server >= 0 && send(client, "1", 1, 0) == 1 && recv(server, &byte, 1, 0) == 1 && byte == '1');
        CHECK(close(listener) == 0 && close(client) == 0 && close(server) == 0);
        CHECK(unlink(name.sun_path) == 0 || errno == ENOENT);
        CHECK(rmdir(inner) == 0 || errno == ENOENT);
        CHECK(rmdir(outer) == 0 || errno == ENOENT);
    }
    puts("every socket was reached by its name");
    return 0;
}
