#!/usr/bin/env bash
# A site's recipe: the program catches SIGTERM, saves its state, and reads it at its next start. ROUNDS: number of rounds of 0.1 s.
round=$(cat state 2>/dev/null || echo 0)
trap 'echo "$round" >state; echo "saved at round $round"; exit 143' TERM
while ((round < ${ROUNDS:-36000})); do
    sleep 0.1
    round=$((round + 1))
    echo "round $round"
done
rm -f state
