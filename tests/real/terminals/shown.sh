#!/bin/bash
# What runs on the terminal: sizes, job control, colours, children.
set -m
tty > /dev/null || exit 1
stty rows 30 cols 100
for ((step = 1; step <= $1; step++)); do
    sleep 0.05 &
    wait $!
    printf '\e[1m%d\e[0m %s %s\n' $step "$(stty size < /dev/tty)" "$(seq $step | sha256sum | cut -c1-8)"
    sleep 0.05
done
exit 5
