#!/usr/bin/env bash
# Stands for a program with files in a scratch directory: one stays open, the other is opened now and then.
exec 3>"$SCRATCH/log"
for ((i = 1; i <= ${ROUNDS:-36000}; i++)); do
    sleep 0.1
    echo "round $i" >&3
    echo "$i" >>"$SCRATCH/numbers"
    echo "round $i"
done
cksum <"$SCRATCH/log"
cksum <"$SCRATCH/numbers"
