// Tests the threads that the C library starts for itself and that block every signal: for SIGEV_THREAD timers, for
// notifications of message queues, and for asynchronous I/O.
// @restored Threads that block every signal: the C library's for SIGEV_THREAD timers (timer_create), notifications of message queues (mq_notify; while none is registered) and POSIX asynchronous I/O (aio_read, aio_write)
#include "check.h"
#include <aio.h>
#include <fcntl.h>
#include <mqueue.h>

static _Atomic int fired;

static void fire(union sigval value) {
    CHECK(value.sival_int == 4711);
    fired++;
}

static _Atomic int notified;

static void notify(union sigval value) {
    CHECK(value.sival_int == 815);
    notified++;
}

// The thread that waits for notifications stays when one has come; so this takes as long as a message does.
static void be_notified(mqd_t queue) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notify, .sigev_value.sival_int = 815};
    char message[16];
    int before = notified;
    CHECK(mq_notify(queue, &event) == 0 && mq_send(queue, "x", 1, 0) == 0);
    while (notified == before) rest();
    CHECK(mq_receive(queue, message, sizeof message, NULL) == 1);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = fire, .sigev_value.sival_int = 4711};
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    struct itimerspec period = {{0, 20000000}, {0, 20000000}};
    CHECK(timer_settime(timer, 0, &period, NULL) == 0);
    char name[] = "library_threads.XXXXXX", written[4096], readback[4096];
    int fd = mkstemp(name);
    CHECK(fd >= 0 && unlink(name) == 0);
    char queue_name[64];
    snprintf(queue_name, sizeof queue_name, "/library_threads.%d", (int)getpid());
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 16};
    mqd_t queue = mq_open(queue_name, O_RDWR | O_CREAT | O_EXCL, 0600, &attributes);
    CHECK(queue != -1 && mq_unlink(queue_name) == 0);
    be_notified(queue);
    // A request that waits for the whole time: its thread is blocked in a read.
    int ends[2];
    char late = 0;
    CHECK(pipe(ends) == 0);
    struct aiocb waiting = {.aio_fildes = ends[0], .aio_buf = &late, .aio_nbytes = 1};
    CHECK(aio_read(&waiting) == 0);
    int before = 0;
    for (int round = 0; round < rounds; round++) {
        fill(written, sizeof written, (unsigned)round);
        struct aiocb request = {.aio_fildes = fd, .aio_buf = written, .aio_nbytes = sizeof written, .aio_offset = (round % 16) * 4096};
        const struct aiocb *list[] = {&request};
        CHECK(aio_write(&request) == 0);
        while (aio_error(&request) == EINPROGRESS) CHECK(aio_suspend(list, 1, NULL) == 0);
        CHECK(aio_error(&request) == 0 && aio_return(&request) == sizeof written);
        request.aio_buf = readback;
        CHECK(aio_read(&request) == 0);
        while (aio_error(&request) == EINPROGRESS) CHECK(aio_suspend(list, 1, NULL) == 0);
        CHECK(aio_return(&request) == sizeof readback && holds(readback, sizeof readback, (unsigned)round));
        rest();
        CHECK(aio_error(&waiting) == EINPROGRESS);
        if (round % 50 == 49) {
            CHECK(fired > before);
            before = fired;
        }
    }
    be_notified(queue);
    CHECK(write(ends[1], "x", 1) == 1);
    while (aio_error(&waiting) == EINPROGRESS) rest();
    CHECK(aio_return(&waiting) == 1 && late == 'x');
    CHECK(timer_delete(timer) == 0);
    puts("the library's threads went on");
}
