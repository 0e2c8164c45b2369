// What programs share that are told by the kernel where they run.
#pragma once
#include "check.h"
#include <sched.h>

// Goes to each of the first four processors in turn: the kernel must write its number to `told`, wherever a checkpoint falls.
static inline void visit_processors(const volatile uint32_t *told) {
    cpu_set_t before;
    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    for (int cpu = 0; cpu < 4; cpu++) {
        if (!CPU_ISSET(cpu, &before)) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
        CHECK((int)*told == cpu && sched_getcpu() == cpu);
    }
    CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
}
