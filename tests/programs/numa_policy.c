// Tests that threads and mappings keep the policy by which their pages are placed on memory nodes.
// @restored Memory: NUMA policy of each thread (set_mempolicy) and mapping (mbind)
// @not-kept Memory: the node of each page: pages are placed anew, by the policy of their mapping
// @not-kept Memory: set_mempolicy_home_node: the kernel does not show it
#include "check.h"
#include <linux/mempolicy.h>

enum { PAGE = 4096, PAGES = 8 };

static long policy_at(void *at, unsigned long *nodes) {
    int mode = -1;
    *nodes = 0;
    unsigned long mask[16] = {0};
    CHECK(syscall(SYS_get_mempolicy, &mode, mask, 1024ul, at, at ? MPOL_F_ADDR : 0) == 0);
    *nodes = mask[0];
    return mode;
}

static char *bound(int mode, unsigned long nodes, int flags) {
    char *at = mmap(NULL, (PAGES + 1) * PAGE, PROT_NONE, flags, -1, 0);
    CHECK(at != MAP_FAILED && mprotect(at, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
    CHECK(syscall(SYS_mbind, at, PAGES * PAGE, mode, nodes ? &nodes : NULL, nodes ? 65ul : 0ul, 0) == 0);
    return at;
}

static int rounds;

static void *other(void *unused) {
    (void)unused;
    unsigned long node = 1, nodes;
    CHECK(syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &node, 65ul) == 0);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(policy_at(NULL, &nodes) == MPOL_INTERLEAVE && nodes == 1);
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    unsigned long node = 1, nodes;
    char *tied = bound(MPOL_BIND, 1, MAP_PRIVATE | MAP_ANONYMOUS), *near = bound(MPOL_PREFERRED | MPOL_F_STATIC_NODES, 1, MAP_PRIVATE | MAP_ANONYMOUS);
    char *spread = bound(MPOL_INTERLEAVE, 1, MAP_SHARED | MAP_ANONYMOUS), *local = bound(MPOL_LOCAL, 0, MAP_PRIVATE | MAP_ANONYMOUS);
    char *any = bound(MPOL_DEFAULT, 0, MAP_PRIVATE | MAP_ANONYMOUS);
    fill(tied, PAGES * PAGE, 1);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, other, NULL) == 0);
    CHECK(syscall(SYS_set_mempolicy, MPOL_BIND, &node, 65ul) == 0);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(policy_at(NULL, &nodes) == MPOL_BIND && nodes == 1);
        CHECK(policy_at(tied, &nodes) == MPOL_BIND && nodes == 1 && holds(tied, PAGES * PAGE, 1));
        CHECK(policy_at(near, &nodes) == (MPOL_PREFERRED | MPOL_F_STATIC_NODES) && nodes == 1);
        CHECK(policy_at(spread, &nodes) == MPOL_INTERLEAVE && nodes == 1);
        CHECK(policy_at(local, &nodes) == MPOL_LOCAL && policy_at(any, &nodes) == MPOL_DEFAULT);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    puts("every policy was kept");
}
