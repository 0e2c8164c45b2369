// Prints which signals it was started with blocked and ignored, the real-time ones left out.
// @restored Process: signals that are blocked or ignored at the start of a program
#include "check.h"

int main(void) {
    FILE *status = fopen("/proc/self/status", "r");
    CHECK(status != NULL);
    char line[256];
    while (fgets(line, sizeof line, status))
        if (strncmp(line, "SigBlk", 6) == 0 || strncmp(line, "SigIgn", 6) == 0) printf("%.6s %08lx\n", line, strtoul(line + 7, NULL, 16) & 0x7fffffff);
    return 0;
}
