#!/bin/sh
# One piece of work, a shell with a few children of its own.
sum=$(seq 1 40000 | awk -v piece="$1" '{ h = (h * 31 + $1 * piece) % 1000003; for (i = 0; i < 12; i++) h = (h * 17 + i) % 1000003 } END { print h }')
echo "$1 $sum $(printf '%s' "$sum" | cksum)"
