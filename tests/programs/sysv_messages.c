// Tests that System V message queues keep ids, keys, messages with their types in their order, permissions and capacity, and who waits.
// @restored System V message queues: id, key, messages with types and order, owner, permissions, capacity, processes that wait for messages or for room
// @refused System V message queues: queues that the job did not make and has used, messages of more than 1 MiB, all queues on a kernel without CONFIG_CHECKPOINT_RESTORE (messages cannot be read without removing them)
// @not-kept System V message queues: times, and the last sender and receiver (lspid, lrpid): only the kernel writes them
#include "check.h"
#include <sys/ipc.h>
#include <sys/msg.h>

struct message {
    long type;
    unsigned char text[600];
};

static void send(int queue, long type, unsigned key, size_t len) {
    struct message message = {.type = type};
    fill(message.text, len, key);
    CHECK(msgsnd(queue, &message, len, 0) == 0);
}

static void take(int queue, long wanted, long type, unsigned key, size_t len) {
    struct message message;
    CHECK(msgrcv(queue, &message, sizeof message.text, wanted, 0) == (ssize_t)len);
    CHECK(message.type == type && holds(message.text, len, key));
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    key_t key = (key_t)(0x5c000000 + getpid());
    for (int i = 0; i < 3; i++) CHECK(msgctl(msgget(IPC_PRIVATE, 0600), IPC_RMID, NULL) == 0);
    int queue = msgget(key, IPC_CREAT | IPC_EXCL | 0640), full = msgget(IPC_PRIVATE, 0600), back = msgget(IPC_PRIVATE, 0600);
    CHECK(queue >= 0 && full >= 0 && back >= 0);
    struct msqid_ds now;
    for (int i = 0; i < 5; i++) send(full, i + 1, (unsigned)i, 200);
    // Less than what is in it.
    CHECK(msgctl(full, IPC_STAT, &now) == 0);
    now.msg_qbytes = 700;
    CHECK(msgctl(full, IPC_SET, &now) == 0);
    // As many as it takes: their types are not counted.
    int small = msgget(IPC_PRIVATE, 0600), in_small = 0;
    struct message tiny = {.type = 1};
    CHECK(small >= 0);
    while (msgsnd(small, &tiny, 128, IPC_NOWAIT) == 0) in_small++;
    CHECK(errno == EAGAIN);
    send(queue, 5, 50, 0);
    send(queue, 3, 51, 600);
    send(queue, 5, 52, 17);
    send(queue, 9, 53, 1);
    pid_t blocked = fork();
    CHECK(blocked >= 0);
    if (blocked == 0) {
        send(full, 99, 99, 300);
        _exit(0);
    }
    pid_t partner = fork();
    CHECK(partner >= 0);
    if (partner == 0) {
        for (int round = 0; round < rounds; round++) {
            take(back, 0, round + 1, (unsigned)round, 20);
            send(back, 1000000 + round, (unsigned)round, 30);
            // So that this process does not take its own.
            take(back, 2000000, 2000000, 0, 1);
        }
        _exit(0);
    }
    for (int round = 0; round < rounds; round++) {
        rest();
        send(back, round + 1, (unsigned)round, 20);
        take(back, 1000000 + round, 1000000 + round, (unsigned)round, 30);
        send(back, 2000000, 0, 1);
        CHECK(msgctl(queue, IPC_STAT, &now) == 0 && now.msg_qnum == 4 && now.__msg_cbytes == 618 && (now.msg_perm.mode & 0777) == 0640);
        CHECK(now.msg_perm.__key == key && msgget(key, 0) == queue && now.msg_perm.uid == geteuid() && now.msg_perm.cgid == getegid());
        CHECK(msgctl(full, IPC_STAT, &now) == 0 && now.msg_qnum == 5 && now.msg_qbytes == 700);
    }
    int status;
    CHECK(waitpid(partner, &status, 0) == partner && status == 0);
    take(queue, 5, 5, 50, 0);
    take(queue, -4, 3, 51, 600);
    take(queue, 0, 5, 52, 17);
    take(queue, 0, 9, 53, 1);
    CHECK(msgctl(small, IPC_STAT, &now) == 0 && now.msg_qnum == (msgqnum_t)in_small && msgctl(small, IPC_RMID, NULL) == 0);
    for (int i = 0; i < 5; i++) take(full, 0, i + 1, (unsigned)i, 200);
    take(full, 0, 99, 99, 300);
    CHECK(waitpid(blocked, &status, 0) == blocked && status == 0);
    CHECK(msgctl(queue, IPC_RMID, NULL) == 0 && msgctl(full, IPC_RMID, NULL) == 0 && msgctl(back, IPC_RMID, NULL) == 0);
    puts("every message arrived");
}
