#!/bin/bash
# Reads, sorted by two threads with temporary files, merged, indexed, and what is counted in them.
mkdir -p scratch
for ((n = 1; n <= $1; n++)); do
    awk -v seed="$n" 'BEGIN {
        x = seed; print "@HD\tVN:1.6\n@SQ\tSN:one\tLN:1000000\n@SQ\tSN:two\tLN:500000"
        for (r = 0; r < 60000; r++) {
            x = (x * 1103515245 + 12345) % 2147483648
            text = substr("ACGTTGCATCGATCGGATCTTAGCGATTCGAGCTATCGGATCGATTTAGCGACGATCTAGCTAGGCATCG", x % 20 + 1, 50)
            printf "r%d\t%d\t%s\t%d\t60\t50M\t*\t0\t0\t%s\t*\n", r, x % 2 * 16, x % 3 ? "one" : "two", int(x / 8) % 499000 + 1, text
        }
    }' | samtools sort -@ 2 -m 4M -T scratch/part --no-PG -o "reads$n.bam" - 2>/dev/null || exit 1
    samtools index -@ 2 "reads$n.bam" && samtools flagstat "reads$n.bam" | head -n 1
    samtools depth "reads$n.bam" | cksum
done
samtools merge -@ 2 --no-PG -f all.bam reads*.bam && samtools view all.bam | cksum
