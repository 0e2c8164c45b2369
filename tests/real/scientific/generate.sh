#!/bin/sh
# Sequences of letters, in FASTA: letters, how many, their length, a seed. Later ones are earlier ones with some changes.
awk -v letters="$1" -v count="$2" -v size="$3" -v x="$4" '
function draw(n) { x = (x * 1103515245 + 12345) % 2147483648; return int(x / 65536) % n }
BEGIN {
    kinds = length(letters)
    for (n = 1; n <= count; n++) {
        printf ">s%d\n", n
        text = ""
        if (n % 4 == 1 || n == 2) {
            for (i = 0; i < size; i++) text = text substr(letters, draw(kinds) + 1, 1)
            known = text
        } else {
            for (i = 1; i <= size; i++) text = text (draw(5) ? substr(known, i, 1) : substr(letters, draw(kinds) + 1, 1))
        }
        print text
    }
}'
