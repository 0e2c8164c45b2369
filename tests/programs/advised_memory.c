// Tests that the kernel treats mappings as it was told to, and that what a child would not see is there.
// @restored Memory: madvise with DONTFORK, WIPEONFORK, DONTDUMP, HUGEPAGE, NOHUGEPAGE, MERGEABLE, SEQUENTIAL, RANDOM; MAP_NORESERVE
#include "vmflags.h"
#include <fcntl.h>

enum { PAGE = 4096, SIZE = 4 << 20 };

struct area {
    char *at;
    int advice;
    const char *flag;
    char before[256];
};

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int file = open("advised.file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0 && ftruncate(file, SIZE) == 0);
    struct area areas[] = {
        {.advice = MADV_DONTFORK, .flag = "dc"},   {.advice = MADV_WIPEONFORK, .flag = "wf"},  {.advice = MADV_DONTDUMP, .flag = "dd"},
        {.advice = MADV_HUGEPAGE, .flag = "hg"},   {.advice = MADV_NOHUGEPAGE, .flag = "nh"},  {.advice = MADV_MERGEABLE, .flag = "mg"},
        {.advice = MADV_SEQUENTIAL, .flag = "sr"}, {.advice = MADV_RANDOM, .flag = "rr"},      {.advice = -1, .flag = "nr"},
        {.advice = -2, .flag = "rr"},              {.advice = -3, .flag = "sr"},               {.advice = -4, .flag = "dc"},
    };
    const int count = sizeof areas / sizeof *areas;
    for (int i = 0; i < count; i++) {
        struct area *area = &areas[i];
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | (area->advice == -1 ? MAP_NORESERVE : 0), fd = -1, advice = area->advice;
        if (advice == -2) flags = MAP_SHARED, fd = file, advice = MADV_RANDOM;
        if (advice == -3) flags = MAP_PRIVATE, fd = file, advice = MADV_SEQUENTIAL;
        if (advice == -4) flags = MAP_SHARED | MAP_ANONYMOUS, advice = MADV_DONTFORK;
        area->at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);
        CHECK(area->at != MAP_FAILED);
        // A kernel may lack what is only about speed.
        if (advice >= 0 && madvise(area->at, SIZE, advice) != 0) area->flag = NULL;
        fill(area->at + i * PAGE, 3 * PAGE, 10 + (unsigned)i);
        flags_of(area->at, area->before, sizeof area->before);
        CHECK(!area->flag || has_flag(area->at, area->flag));
    }
    char after[256];
    for (int round = 0; round < rounds; round++) {
        rest();
        if (round % 20) continue;
        for (int i = 0; i < count; i++) {
            flags_of(areas[i].at, after, sizeof after);
            if (strcmp(areas[i].before, after)) dprintf(2, "%d: %s%s", i, areas[i].before, after);
            CHECK(strcmp(areas[i].before, after) == 0);
            if (areas[i].advice == -2) continue;
            CHECK(holds(areas[i].at + i * PAGE, 3 * PAGE, 10 + (unsigned)i));
        }
        pid_t child = fork();
        if (child == 0) {
            // Not there in a child, and empty in a child.
            unsigned char present[1];
            CHECK(mincore(areas[0].at, PAGE, present) == -1 && errno == ENOMEM);
            CHECK(areas[1].at[PAGE] == 0 && areas[1].at[2 * PAGE + 5] == 0);
            CHECK(holds(areas[2].at + 2 * PAGE, 3 * PAGE, 12));
            _exit(0);
        }
        int status;
        CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    }
    puts("every advice was kept");
}
