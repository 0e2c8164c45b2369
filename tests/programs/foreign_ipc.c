// Tests that a job which uses System V IPC that it did not make runs on, though it cannot be checkpointed: the kind and the id are its arguments.
#include "check.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

int main(int argc, char **argv) {
    CHECK(argc > 2);
    int id = atoi(argv[2]);
    if (strcmp(argv[1], "memory") == 0) CHECK(shmat(id, NULL, 0) != (void *)-1);
    struct sembuf up = {1, 1, 0};
    if (strcmp(argv[1], "semaphores") == 0) CHECK(semop(id, &up, 1) == 0);
    struct msgbuf message = {1, {0}};
    if (strcmp(argv[1], "queue") == 0) CHECK(msgsnd(id, &message, 1, 0) == 0);
    for (int round = 0; round < 60; round++) rest();
    puts("untouched");
}
