// Tests that a job with a property that no restart could give back runs on: takes on the one named by the argument, waits, and goes on as
// nothing had been. It ends with 77 where this machine does not allow it.
// @refused Process: seccomp filters and strict mode, other than the launcher's own (they cannot be read)
// @refused Process: its own namespaces: unshare, setns, containers (a restart makes one set of namespaces for the whole job)
// @refused Process: memory, descriptors or directories that processes share by clone (processes are restarted one by one)
// @refused Process: a thread's own descriptors or directories (threads are restarted with those of their process)
// @refused Process: a process stopped by a debugger (the next checkpoint tries again)
// @refused Process: a process traced by another process of the job: strace, gdb, proot (a tracer outside of the job does no harm)
// @refused Process: a child of vfork that neither calls exec nor ends (it runs in its parent's memory)
// @refused Memory: memory of memfd_secret (only the program can read it), shadow stacks, linear address masking
#include "check.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

static void rest_long(void) {
    for (int round = 0; round < 100; round++) rest();
}

// A child that waits for a byte, and ends with it.
static pid_t waiting_child(int ends[2]) {
    char byte;
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child > 0) return child;
    struct pollfd wait = {.fd = ends[0], .events = POLLIN};
    CHECK(close(ends[1]) == 0 && poll(&wait, 1, -1) == 1 && read(ends[0], &byte, 1) == 1);
    _exit(byte);
}

static void is_let_go(pid_t child, int ends[2]) {
    int status;
    CHECK(write(ends[1], "*", 1) == 1 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == '*');
}

// Traces a child, which must not be seen to stop for a signal of the checkpoint.
static int trace_a_child(void) {
    int ends[2];
    pid_t child = waiting_child(ends);
    if (ptrace(PTRACE_SEIZE, child, 0, 0) != 0) return 0;
    rest_long();
    CHECK(waitpid(child, NULL, WNOHANG | __WALL) == 0);
    CHECK(ptrace(PTRACE_INTERRUPT, child, 0, 0) == 0 && waitpid(child, NULL, __WALL) == child);
    CHECK(ptrace(PTRACE_DETACH, child, 0, 0) == 0);
    is_let_go(child, ends);
    return 1;
}

// Is held from outside while there is a file "held". When it is let go, it does not wait for a coordinator that does not listen any more, and
// the call that it was blocked in does not fail.
static int be_held(void) {
    int ends[2];
    pid_t child = waiting_child(ends);
    FILE *file = fopen("pids.new", "w");
    CHECK(file && fprintf(file, "%d %d\n", getppid(), child) > 0 && fclose(file) == 0 && rename("pids.new", "pids") == 0);
    while (access("pids", F_OK) == 0) rest();
    is_let_go(child, ends);
    return 1;
}

// Run outside of the job: asks for one checkpoint while it holds a process of the job for longer than that waits.
static int hold(void) {
    int launcher, child;
    FILE *file = fopen("pids", "r");
    CHECK(file && fscanf(file, "%d %d", &launcher, &child) == 2 && fclose(file) == 0);
    int holds = ptrace(PTRACE_SEIZE, child, 0, 0) == 0;
    if (holds) {
        CHECK(ptrace(PTRACE_INTERRUPT, child, 0, 0) == 0 && waitpid(child, NULL, __WALL) == child);
        CHECK(kill(launcher, SIGUSR1) == 0);
        sleep(12);
        CHECK(ptrace(PTRACE_DETACH, child, 0, 0) == 0);
    }
    CHECK(unlink("pids") == 0);
    return holds;
}

static int child(void *unused) {
    (void)unused;
    // By raw calls: the stack is small, and may be another's.
    for (int round = 0; round < 100; round++) {
        struct timespec ten_milliseconds = {0, 10000000};
        syscall(SYS_nanosleep, &ten_milliseconds, NULL);
    }
    syscall(SYS_exit, 0);
    return 0;
}

static char stack[65536];

static int clone_with(int flags) {
    pid_t pid = clone(child, stack + sizeof stack, flags | SIGCHLD, NULL);
    if (pid < 0) return 0;
    rest_long();
    CHECK(waitpid(pid, NULL, 0) == pid);
    return 1;
}

static int flags_of_thread;

static void *thread(void *unused) {
    (void)unused;
    CHECK(unshare(flags_of_thread) == 0);
    rest_long();
    return NULL;
}

static int in_thread(int flags) {
    pthread_t id;
    flags_of_thread = flags;
    CHECK(pthread_create(&id, NULL, thread, NULL) == 0 && pthread_join(id, NULL) == 0);
    return 1;
}

static int enter(int namespace) {
    if (unshare(namespace) != 0) return 0;
    rest_long();
    return 1;
}

static int strictly(void) {
    pid_t pid = fork();
    if (pid == 0) {
        int pause[2];
        char byte;
        CHECK(pipe(pause) == 0);
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) _exit(77);
        // The end of the parent ends the wait.
        while (read(pause[0], &byte, 1) > 0) continue;
        syscall(SYS_exit, 0);
    }
    rest_long();
    int status;
    CHECK(waitpid(pid, &status, WNOHANG) == 0 && kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
    return 1;
}

static int take_on(const char *what) {
    if (strcmp(what, "seccomp") == 0) {
        struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        struct sock_fprog program = {1, &allow};
        CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return 0;
        rest_long();
        return 1;
    }
    if (strcmp(what, "strict_seccomp") == 0) return strictly();
    if (strcmp(what, "user_namespace") == 0) return enter(CLONE_NEWUSER);
    if (strcmp(what, "host_name") == 0) return enter(CLONE_NEWUSER | CLONE_NEWUTS);
    if (strcmp(what, "shared_descriptors") == 0) return clone_with(CLONE_FILES);
    if (strcmp(what, "shared_directories") == 0) return clone_with(CLONE_FS);
    if (strcmp(what, "own_descriptors") == 0) return in_thread(CLONE_FILES);
    if (strcmp(what, "own_directories") == 0) return in_thread(CLONE_FS);
    if (strcmp(what, "secret_memory") == 0) {
        int secret = (int)syscall(447, 0);
        if (secret < 0) return 0;
        CHECK(ftruncate(secret, 4096) == 0 && mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, secret, 0) != MAP_FAILED);
        CHECK(close(secret) == 0);
        rest_long();
        return 1;
    }
    if (strcmp(what, "vfork") == 0) {
        pid_t pid = vfork();
        if (pid == 0) {
            struct timespec long_time = {13, 0};
            syscall(SYS_nanosleep, &long_time, NULL);
            _exit(0);
        }
        CHECK(waitpid(pid, NULL, 0) == pid);
        return 1;
    }
    if (strcmp(what, "traced") == 0) return trace_a_child();
    if (strcmp(what, "held") == 0) return be_held();
    if (strcmp(what, "hold") == 0) return hold();
    CHECK(!"such a property is known");
    return 0;
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    if (!take_on(argv[1])) return 77;
    puts("untouched");
}
