// Tests that the x87, SSE and AVX registers, and their control words, are live across a checkpoint, in two threads.
// @restored Threads: x87, SSE and AVX registers with their control words
#include "check.h"
#include <fenv.h>
#include <xmmintrin.h>

static int rounds;

// Loads all 16 ymm registers, spins without touching them, and stores them.
static void spin_with_registers(const uint64_t in[16][4], uint64_t out[16][4], long spins) {
    __asm__ volatile(
        "vmovdqu 0(%0), %%ymm0\n vmovdqu 32(%0), %%ymm1\n vmovdqu 64(%0), %%ymm2\n vmovdqu 96(%0), %%ymm3\n"
        "vmovdqu 128(%0), %%ymm4\n vmovdqu 160(%0), %%ymm5\n vmovdqu 192(%0), %%ymm6\n vmovdqu 224(%0), %%ymm7\n"
        "vmovdqu 256(%0), %%ymm8\n vmovdqu 288(%0), %%ymm9\n vmovdqu 320(%0), %%ymm10\n vmovdqu 352(%0), %%ymm11\n"
        "vmovdqu 384(%0), %%ymm12\n vmovdqu 416(%0), %%ymm13\n vmovdqu 448(%0), %%ymm14\n vmovdqu 480(%0), %%ymm15\n"
        "1: dec %2\n jnz 1b\n"
        "vmovdqu %%ymm0, 0(%1)\n vmovdqu %%ymm1, 32(%1)\n vmovdqu %%ymm2, 64(%1)\n vmovdqu %%ymm3, 96(%1)\n"
        "vmovdqu %%ymm4, 128(%1)\n vmovdqu %%ymm5, 160(%1)\n vmovdqu %%ymm6, 192(%1)\n vmovdqu %%ymm7, 224(%1)\n"
        "vmovdqu %%ymm8, 256(%1)\n vmovdqu %%ymm9, 288(%1)\n vmovdqu %%ymm10, 320(%1)\n vmovdqu %%ymm11, 352(%1)\n"
        "vmovdqu %%ymm12, 384(%1)\n vmovdqu %%ymm13, 416(%1)\n vmovdqu %%ymm14, 448(%1)\n vmovdqu %%ymm15, 480(%1)\n"
        "vzeroupper\n"
        : "+r"(in), "+r"(out), "+r"(spins)::"memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
          "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

static void *work(void *argument) {
    unsigned key = (unsigned)(long)argument;
    uint64_t in[16][4], out[16][4];
    // Each thread rounds in its own way, in x87 and in SSE.
    CHECK(fesetround(key ? FE_UPWARD : FE_TOWARDZERO) == 0);
    unsigned mxcsr = _mm_getcsr();
    unsigned short control, control_now;
    __asm__ volatile("fnstcw %0" : "=m"(control));
    for (int round = 0; round < rounds; round++) {
        fill(in, sizeof in, key * 1000 + (unsigned)round);
        // A value stays on the x87 stack meanwhile.
        double pi;
        __asm__ volatile("fldpi");
        spin_with_registers(in, out, 15000000);
        __asm__ volatile("fstpl %0" : "=m"(pi));
        CHECK(memcmp(in, out, sizeof in) == 0);
        CHECK(pi > 3.14159 && pi < 3.14160);
        CHECK((_mm_getcsr() & ~0x3fu) == (mxcsr & ~0x3fu));
        __asm__ volatile("fnstcw %0" : "=m"(control_now));
        CHECK(control == control_now);
        CHECK(fegetround() == (key ? FE_UPWARD : FE_TOWARDZERO));
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    pthread_t threads[2];
    for (long i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("no register lost a bit");
}
