// What /proc/self/smaps says of a mapping.
#pragma once
#include "check.h"

// The line of this key (`VmFlags:`, `ProtectionKey:`) of the mapping that begins at an address, without the key.
static inline void smaps_line(const void *start, const char *key, char *found, size_t size) {
    FILE *smaps = fopen("/proc/self/smaps", "r");
    CHECK(smaps);
    char line[512], head[32];
    snprintf(head, sizeof head, "%lx-", (unsigned long)start);
    int within = 0;
    found[0] = 0;
    while (fgets(line, sizeof line, smaps)) {
        if (strncmp(line, head, strlen(head)) == 0) within = 1;
        if (within && strncmp(line, key, strlen(key)) == 0) {
            snprintf(found, size, "%.*s", (int)size - 1, line + strlen(key));
            break;
        }
    }
    CHECK(fclose(smaps) == 0);
}

// Its flags, but for `sd` (written since somebody asked), which anybody may reset.
static inline void flags_of(const void *start, char *flags, size_t size) {
    smaps_line(start, "VmFlags:", flags, size);
    char *soft_dirty = strstr(flags, " sd");
    if (soft_dirty) memmove(soft_dirty, soft_dirty + 3, strlen(soft_dirty + 3) + 1);
}

static inline int has_flag(const void *start, const char *flag) {
    char flags[256], word[8];
    flags_of(start, flags, sizeof flags);
    snprintf(word, sizeof word, " %s ", flag);
    return strstr(flags, word) != NULL;
}
