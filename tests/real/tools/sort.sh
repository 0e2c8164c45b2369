#!/bin/sh
# Sorts generated lines in two threads, with so little memory that most of it goes through temporary files.
mkdir -p scratch
awk -v lines="$1" 'BEGIN { x = 1; for (i = 0; i < lines; i++) { x = (x * 1103515245 + 12345) % 2147483648; print x, i % 1000, "line" } }' >lines
for key in 1,1n 2,2n 1,1 2,2r; do
    sort --parallel=2 -S 4M -T scratch -k "$key" lines -o "sorted.$key" && cksum <"sorted.$key"
done
