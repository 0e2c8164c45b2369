// Runs a command as a container would with Docker's default seccomp profile: clone3 is not there, and kcmp and new namespaces are forbidden.
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define REFUSE(error) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))
#define CALL_IS(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1)

int main(int argc, char **argv) {
    CHECK(argc > 1);
    struct sock_filter filter[] = {
        LOAD(nr),
        CALL_IS(SYS_clone3), REFUSE(ENOSYS),
        CALL_IS(SYS_kcmp), REFUSE(EPERM),
        CALL_IS(SYS_unshare), REFUSE(EPERM),
        CALL_IS(SYS_setns), REFUSE(EPERM),
        CALL_IS(SYS_mount), REFUSE(EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    execvp(argv[1], argv + 1);
    CHECK(!"exec");
}
