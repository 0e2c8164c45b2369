// Tests that all 32 zmm registers and the 7 mask registers of AVX-512 are live across a checkpoint, in two threads.
// @restored Threads: AVX-512 registers and mask registers
#include "check.h"

static int rounds;

// Loads the registers, spins without touching them, and stores them.
__attribute__((target("avx512f"))) static void spin_with_registers(const uint64_t in[32][8], uint64_t out[32][8], long spins,
                                                                   uint16_t masks[16]) {
    __asm__ volatile(
        "vmovdqu64 0(%0), %%zmm0\n"
        "vmovdqu64 64(%0), %%zmm1\n"
        "vmovdqu64 128(%0), %%zmm2\n"
        "vmovdqu64 192(%0), %%zmm3\n"
        "vmovdqu64 256(%0), %%zmm4\n"
        "vmovdqu64 320(%0), %%zmm5\n"
        "vmovdqu64 384(%0), %%zmm6\n"
        "vmovdqu64 448(%0), %%zmm7\n"
        "vmovdqu64 512(%0), %%zmm8\n"
        "vmovdqu64 576(%0), %%zmm9\n"
        "vmovdqu64 640(%0), %%zmm10\n"
        "vmovdqu64 704(%0), %%zmm11\n"
        "vmovdqu64 768(%0), %%zmm12\n"
        "vmovdqu64 832(%0), %%zmm13\n"
        "vmovdqu64 896(%0), %%zmm14\n"
        "vmovdqu64 960(%0), %%zmm15\n"
        "vmovdqu64 1024(%0), %%zmm16\n"
        "vmovdqu64 1088(%0), %%zmm17\n"
        "vmovdqu64 1152(%0), %%zmm18\n"
        "vmovdqu64 1216(%0), %%zmm19\n"
        "vmovdqu64 1280(%0), %%zmm20\n"
        "vmovdqu64 1344(%0), %%zmm21\n"
        "vmovdqu64 1408(%0), %%zmm22\n"
        "vmovdqu64 1472(%0), %%zmm23\n"
        "vmovdqu64 1536(%0), %%zmm24\n"
        "vmovdqu64 1600(%0), %%zmm25\n"
        "vmovdqu64 1664(%0), %%zmm26\n"
        "vmovdqu64 1728(%0), %%zmm27\n"
        "vmovdqu64 1792(%0), %%zmm28\n"
        "vmovdqu64 1856(%0), %%zmm29\n"
        "vmovdqu64 1920(%0), %%zmm30\n"
        "vmovdqu64 1984(%0), %%zmm31\n"
        "kmovw 2(%3), %%k1\n"
        "kmovw 4(%3), %%k2\n"
        "kmovw 6(%3), %%k3\n"
        "kmovw 8(%3), %%k4\n"
        "kmovw 10(%3), %%k5\n"
        "kmovw 12(%3), %%k6\n"
        "kmovw 14(%3), %%k7\n"
        "1: dec %2\n jnz 1b\n"
        "vmovdqu64 %%zmm0, 0(%1)\n"
        "vmovdqu64 %%zmm1, 64(%1)\n"
        "vmovdqu64 %%zmm2, 128(%1)\n"
        "vmovdqu64 %%zmm3, 192(%1)\n"
        "vmovdqu64 %%zmm4, 256(%1)\n"
        "vmovdqu64 %%zmm5, 320(%1)\n"
        "vmovdqu64 %%zmm6, 384(%1)\n"
        "vmovdqu64 %%zmm7, 448(%1)\n"
        "vmovdqu64 %%zmm8, 512(%1)\n"
        "vmovdqu64 %%zmm9, 576(%1)\n"
        "vmovdqu64 %%zmm10, 640(%1)\n"
        "vmovdqu64 %%zmm11, 704(%1)\n"
        "vmovdqu64 %%zmm12, 768(%1)\n"
        "vmovdqu64 %%zmm13, 832(%1)\n"
        "vmovdqu64 %%zmm14, 896(%1)\n"
        "vmovdqu64 %%zmm15, 960(%1)\n"
        "vmovdqu64 %%zmm16, 1024(%1)\n"
        "vmovdqu64 %%zmm17, 1088(%1)\n"
        "vmovdqu64 %%zmm18, 1152(%1)\n"
        "vmovdqu64 %%zmm19, 1216(%1)\n"
        "vmovdqu64 %%zmm20, 1280(%1)\n"
        "vmovdqu64 %%zmm21, 1344(%1)\n"
        "vmovdqu64 %%zmm22, 1408(%1)\n"
        "vmovdqu64 %%zmm23, 1472(%1)\n"
        "vmovdqu64 %%zmm24, 1536(%1)\n"
        "vmovdqu64 %%zmm25, 1600(%1)\n"
        "vmovdqu64 %%zmm26, 1664(%1)\n"
        "vmovdqu64 %%zmm27, 1728(%1)\n"
        "vmovdqu64 %%zmm28, 1792(%1)\n"
        "vmovdqu64 %%zmm29, 1856(%1)\n"
        "vmovdqu64 %%zmm30, 1920(%1)\n"
        "vmovdqu64 %%zmm31, 1984(%1)\n"
        "kmovw %%k1, 18(%3)\n"
        "kmovw %%k2, 20(%3)\n"
        "kmovw %%k3, 22(%3)\n"
        "kmovw %%k4, 24(%3)\n"
        "kmovw %%k5, 26(%3)\n"
        "kmovw %%k6, 28(%3)\n"
        "kmovw %%k7, 30(%3)\n"
        "vzeroupper\n"
        : "+r"(in), "+r"(out), "+r"(spins), "+r"(masks)::"memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", 
          "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", 
          "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", 
          "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31",
          "k1", "k2", "k3", "k4", "k5", "k6", "k7");
}

static void *work(void *argument) {
    unsigned key = (unsigned)(long)argument;
    static _Thread_local uint64_t in[32][8], out[32][8];
    uint16_t masks[16];
    for (int round = 0; round < rounds; round++) {
        fill(in, sizeof in, key * 1000 + (unsigned)round);
        fill(masks, sizeof masks / 2, key * 1000 + (unsigned)round);
        spin_with_registers(in, out, 6000000, masks);
        CHECK(memcmp(in, out, sizeof in) == 0);
        CHECK(memcmp(masks + 1, masks + 9, 14) == 0);
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    CHECK(__builtin_cpu_supports("avx512f"));
    pthread_t threads[2];
    for (long i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("no register lost a bit");
}
