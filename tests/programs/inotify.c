// Tests that inotify watches go on under their numbers, of directories, files, and a file whose name is gone.
// @restored inotify: watches with their numbers, of directories, files and an unlinked file
// @not-kept inotify: unread events: the kernel shows only their size, and a restarted program reads IN_Q_OVERFLOW in their place
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

static int instance;

// Waits for an event; any other may come before. What was not read at a restart is reported lost, and that is as good.
static int comes(int wd, uint32_t mask, const char *name) {
    for (;;) {
        struct pollfd poll_fd = {.fd = instance, .events = POLLIN};
        if (poll(&poll_fd, 1, 10000) != 1) return 0;
        char events[8192] __attribute__((aligned(8)));
        ssize_t size = read(instance, events, sizeof events);
        CHECK(size > 0);
        int found = 0;
        for (char *at = events; at < events + size; at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len) {
            struct inotify_event *event = (struct inotify_event *)at;
            if (event->mask & IN_Q_OVERFLOW) found = 1;
            if (event->wd == wd && (event->mask & mask) && strcmp(event->len ? event->name : "", name) == 0) found = 1;
        }
        if (found) return 1;
    }
}

static void touch(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    CHECK(mkdir("watched", 0700) == 0 && mkdir("watched/deep", 0700) == 0 && mkdir("elsewhere", 0700) == 0);
    touch("elsewhere/file");
    touch("elsewhere/doomed");
    instance = inotify_init1(IN_CLOEXEC);
    CHECK(instance >= 0);
    int gone = inotify_add_watch(instance, "elsewhere", IN_CREATE);
    int directory = inotify_add_watch(instance, "watched", IN_CREATE | IN_MOVED_TO);
    CHECK(gone == 1 && directory == 2 && inotify_rm_watch(instance, gone) == 0);
    // Numbers that nobody has any more lie between those of the watches.
    for (int i = 0; i < 20; i++) CHECK(inotify_rm_watch(instance, inotify_add_watch(instance, "elsewhere", IN_CREATE)) == 0);
    int deep = inotify_add_watch(instance, "watched/deep", IN_ALL_EVENTS);
    int file = inotify_add_watch(instance, "elsewhere/file", IN_CLOSE_WRITE);
    int open_file = open("elsewhere/doomed", O_RDWR);
    int unlinked = inotify_add_watch(instance, "elsewhere/doomed", IN_MODIFY);
    CHECK(deep == 23 && file == 24 && unlinked == 25 && open_file >= 0 && unlink("elsewhere/doomed") == 0);
    for (int round = 0; round < rounds; round++) {
        // A restart may find what was made after the checkpoint.
        unlink("watched/new");
        rest();
        touch("watched/new");
        CHECK(comes(directory, IN_CREATE, "new"));
        CHECK(rename("watched/new", "watched/deep/moved") == 0);
        CHECK(comes(deep, IN_MOVED_TO, "moved"));
        CHECK(unlink("watched/deep/moved") == 0);
        CHECK(comes(deep, IN_DELETE, "moved"));
        touch("elsewhere/file");
        CHECK(comes(file, IN_CLOSE_WRITE, ""));
        CHECK(pwrite(open_file, "y", 1, 0) == 1);
        CHECK(comes(unlinked, IN_MODIFY, ""));
        // A watch that is there already is not made anew.
        CHECK(inotify_add_watch(instance, "watched/deep", IN_ALL_EVENTS) == deep);
        CHECK(fcntl(instance, F_GETFD) == FD_CLOEXEC && !(fcntl(instance, F_GETFL) & O_NONBLOCK));
    }
    CHECK(inotify_rm_watch(instance, directory) == 0 && comes(directory, IN_IGNORED, ""));
    CHECK(inotify_rm_watch(instance, gone) == -1 && errno == EINVAL);
    puts("nothing went unseen");
}
