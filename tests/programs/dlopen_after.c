// Tests that libraries can be loaded and unloaded after a restart, and that those loaded before it go on working.
// @restored Memory: libraries, loaded before the checkpoint and after the restart
#include "check.h"
#include <dlfcn.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    void *kept = dlopen("libresolv.so.2", RTLD_NOW);
    CHECK(kept);
    int (*ntop)(const unsigned char *, size_t, char *, size_t) = (int (*)(const unsigned char *, size_t, char *, size_t))dlsym(kept, "__b64_ntop");
    CHECK(ntop);
    for (int round = 0; round < rounds; round++) {
        void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
        if (!library) dprintf(2, "%s\n", dlerror());
        CHECK(library);
        double (*cosine)(double) = (double (*)(double))dlsym(library, "cos");
        CHECK(cosine && cosine(0) == 1.0);
        rest();
        CHECK(cosine(0) == 1.0);
        CHECK(dlclose(library) == 0);
        char text[16];
        CHECK(ntop((const unsigned char *)"abc", 3, text, sizeof text) == 4 && strcmp(text, "YWJj") == 0);
    }
    puts("libraries came and went");
}
