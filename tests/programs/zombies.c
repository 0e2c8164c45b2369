// Tests that the dead that nobody has waited for keep their exit codes and signals over the checkpoint.
// @restored Process: zombies with exit codes and signals
// @not-kept Process: the core dump flag in a wait status
#include "check.h"
#include <sys/resource.h>

static volatile int deaths;

static void on_chld(int signal) {
    (void)signal;
    deaths++;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    struct sigaction action = {.sa_handler = on_chld, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGCHLD, &action, NULL) == 0);
    struct rlimit no_core = {0, 0};
    CHECK(setrlimit(RLIMIT_CORE, &no_core) == 0);
    static const int codes[] = {0, 1, 77, 128, 200, 255};
    static const int signals[] = {SIGKILL, SIGTERM, SIGABRT, SIGSEGV, SIGUSR1};
    for (int round = 0; round < rounds; round += 100) {
        pid_t exited[6], killed[5];
        deaths = 0;
        for (int i = 0; i < 6; i++)
            if ((exited[i] = fork()) == 0) _exit(codes[i]);
        for (int i = 0; i < 5; i++)
            if ((killed[i] = fork()) == 0) {
                signal(signals[i], SIG_DFL);
                kill(getpid(), signals[i]);
                pause();
            }
        siginfo_t info;
        for (int i = 0; i < 6; i++) CHECK(waitid(P_PID, (id_t)exited[i], &info, WEXITED | WNOWAIT) == 0);
        for (int i = 0; i < 5; i++) CHECK(waitid(P_PID, (id_t)killed[i], &info, WEXITED | WNOWAIT) == 0);
        struct timespec a_moment = {0, 1000000};
        nanosleep(&a_moment, NULL);
        int before = deaths;
        CHECK(before > 0);
        for (int i = 0; i < 100 && round + i < rounds; i++) rest();
        // A restart must not tell of deaths that were told of already.
        CHECK(deaths == before);
        int status;
        for (int i = 0; i < 6; i++) {
            CHECK(waitid(P_PID, (id_t)exited[i], &info, WEXITED | WNOWAIT) == 0);
            CHECK(info.si_code == CLD_EXITED && info.si_status == codes[i] && info.si_pid == exited[i]);
            CHECK(waitpid(exited[i], &status, 0) == exited[i] && WIFEXITED(status) && WEXITSTATUS(status) == codes[i]);
        }
        for (int i = 0; i < 5; i++) {
            CHECK(waitpid(killed[i], &status, 0) == killed[i] && WIFSIGNALED(status) && WTERMSIG(status) == signals[i]);
            CHECK(!WCOREDUMP(status));
        }
        CHECK(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD);
    }
    puts("each of the dead told how it ended");
}
