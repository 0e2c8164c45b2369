#!/bin/bash
# The demo's job: some seconds of what shell jobs do. It counts; beside it a child computes, and a pipeline is slow to
# empty, so that bytes are always on their way in it. Its output depends on nothing but itself.

# A child that computes: a random number generator after a great many steps.
awk 'BEGIN { for (x = 1; n < 20000000; n++) { x = (x * 16807) % 2147483647; if (n % 4000000 == 3999999) print n + 1, x } }' >computed &
computer=$!

# A pipeline of four processes, one of them a loop of this shell's.
seq 1 5000 |
    while read -r n; do ((n % 80)) || sleep 0.1; echo "the square of $n is $((n * n))"; done |
    tee squares | cksum >checksum &
pipeline=$!

total=0
for ((n = 1; n <= 35; n++)); do
    total=$((total + n))
    echo "counted to $n, the sum is $total"
    sleep 0.2
done

wait "$computer"
echo "the computation ended with $? and left:"
cat computed
wait "$pipeline"
echo "the pipeline ended with $?, its checksum is $(cat checksum), its last line: $(tail -n 1 squares)"
[ "$(cksum <squares)" = "$(cat checksum)" ] || exit 1
