#!/usr/bin/env bash
# Stands for your program: it has state in memory and a helper process (sleep), and no checkpoint code.
# ROUNDS: number of rounds of 0.1 s.
sum=0
for ((i = 1; i <= ${ROUNDS:-36000}; i++)); do
    sleep 0.1
    sum=$(((sum * 31 + i) % 1000003))
    echo "round $i: $sum"
done
