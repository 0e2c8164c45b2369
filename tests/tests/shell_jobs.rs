//! Shell jobs: bash, dash and the programs that their scripts are made of.

use ckpt_tests::{Job, survives};

survives!(
    bash_pipelines_with_bytes_in_flight,
    Job::script(
        "bash",
        r#"
set -o pipefail
seq 1 400 | while read -r n; do echo "slow $n"; [ $((n % 10)) = 0 ] && sleep 0.05; done | tee copy | cksum
for i in {1..25}; do
  seq $((i * 500)) | (sleep 0.03; tr 0-9 a-j) | sort -r | cksum
  { echo "first $i"; sleep 0.02; echo "second $i"; } | while read -r line; do echo "got $line"; done
done
false | true; echo "pipe status ${PIPESTATUS[*]}"
"#
    )
    .leaves("copy")
);

survives!(
    bash_background_children,
    Job::script(
        "bash",
        r#"
for i in 1 2 3 4 5; do
  ( for j in {1..25}; do sleep 0.1; echo "child $i step $j"; done >> part.$i; exit $((i * 3)) ) &
  pids[i]=$!
done
for i in 5 3 1 2 4; do wait "${pids[i]}"; echo "child $i ended with $?"; done
cat part.*
wait; echo "none left: $?"
"#
    )
);

survives!(
    bash_subshells_and_pids,
    Job::script(
        "bash",
        r#"
self=$$ parent=$PPID mine=$BASHPID
sleep 100 & background=$!
for i in {1..30}; do
  [ "$$" = "$self" ] && [ "$PPID" = "$parent" ] && [ "$BASHPID" = "$mine" ] && [ "$!" = "$background" ] || echo "an id has changed"
  ( [ "$$" = "$self" ] || echo "a subshell has another \$\$"
    [ "$BASHPID" != "$self" ] || echo "a subshell has no pid of its own"
    sleep 0.1 )
  x=$( (echo "deep $i"; (sleep 0.01; echo "deeper")) | cat )
  echo "$x"
  kill -0 "$background" || echo "the child is gone"
  [ "$(cut -d' ' -f4 "/proc/$background/stat")" = "$self" ] || echo "the child has another parent"
done
kill "$background"; wait "$background"; echo "ended with $?"
"#
    )
);

survives!(
    bash_traps,
    Job::script(
        "bash",
        r#"
n=0
trap 'n=$((n + 1)); echo "signal $n"; : > "seen.$n"' USR1
trap 'echo "the end after $n signals"' EXIT
( for i in {1..25}; do
    sleep 0.1; kill -USR1 $$
    until [ -e "seen.$i" ]; do sleep 0.01; done
  done; exit 9 ) & child=$!
while :; do
  wait "$child"; status=$?
  kill -0 "$child" 2> /dev/null || break
done
wait "$child"; echo "the child ended with $?"
trap '' HUP; kill -HUP $$; echo "not hung up"
exit 5
"#
    )
    .ends_with(5)
);

survives!(
    bash_here_documents,
    Job::script(
        "bash",
        r#"
big=$(seq 1 20000)
while read -r line; do
  n=$((n + 1)); sum=$((sum + line)); [ $((n % 1000)) = 0 ] && { sleep 0.1; echo "$n lines, sum $sum"; }
done <<EOF
$big
EOF
for i in {1..15}; do
  cat <<'EOF' <(sleep 0.05; echo "and a process substitution")
a here document, $i and all
EOF
  tr a-z A-Z <<< "a here string $i"
done
"#
    )
);

survives!(
    bash_job_left_asleep,
    Job::script(
        "bash",
        r#"
sleep 3 & one=$!
sleep 1000 & two=$!
echo "waiting for the short one"
wait $one; echo "it ended with $?"
kill $two; wait $two; echo "the long one ended with $?"
"#
    )
);

survives!(
    dash,
    Job::script(
        "dash",
        r#"
for i in $(seq 1 25); do
  ( sleep 0.1; exit $i ) & pid=$!
  echo "$i $(echo "$i" | sed 's/^/number /')"
  wait $pid; echo "ended with $?"
  cat <<EOF | rev
here is $i
EOF
done
trap 'echo the end' EXIT
seq 1 100 | while read -r n; do sleep 0.005; echo "$n"; done | cksum
"#
    )
);

survives!(
    sort_of_a_large_file,
    Job::script(
        "bash",
        r#"
awk 'BEGIN { srand(7); for (i = 0; i < 1500000; i++) print int(rand() * 1e9), i }' > unsorted
sort -n -S 2M -T . unsorted | tee sorted | cksum
sort -c -n sorted && echo "in order"
sort -k2 -n -S 1M --parallel=2 sorted | cmp - unsorted && echo "and back"
"#
    )
    .leaves("sorted")
);

survives!(
    tee_and_sleep,
    Job::script(
        "bash",
        r#"
(for i in {1..30}; do echo "line $i"; sleep 0.1; done) | tee one two >(cksum > sum) | tail -n 3
while [ ! -s sum ]; do sleep 0.01; done
cat sum
"#
    )
    .leaves("one")
    .leaves("two")
);

survives!(
    awk,
    Job::script(
        "bash",
        r#"
awk 'BEGIN {
  for (i = 1; i <= 30; i++) {
    command = "sleep 0.1; echo " i * i
    command | getline square; close(command)
    total += square; seen[i % 7] += square
    print i, square, total
    print total | "sort -n > sorted"
  }
  close("sort -n > sorted")
  for (i = 0; i < 7; i++) print i, seen[i]
}'
"#
    )
    .leaves("sorted")
);

survives!(
    xargs_with_two_at_a_time,
    Job::script(
        "bash",
        r#"
seq 1 60 | xargs -P2 -n1 sh -c 'sleep 0.1; echo "item $0" > item.$0'
echo "xargs ended with $?"
cat $(ls -v item.*)
seq 1 3 | xargs -P2 -n1 sh -c 'exit 1'; echo "xargs ended with $?"
"#
    )
);

// Files that a job makes or deletes after a checkpoint are nobody's to take back. As after a power cut, a build must not take
// half an object that it finds for a whole one (hence FORCE), nor look for temporary files that it has deleted (hence -pipe).
survives!(
    make_builds_a_c_project,
    Job::script(
        "bash",
        r##"
for i in {1..24}; do
  echo "#include <stdio.h>
  #include <stdlib.h>
  #include <string.h>
  int part_$i(int x) { char text[32]; snprintf(text, sizeof text, \"%d\", x * $i); return atoi(text) + (int)strlen(text); }" > part_$i.c
  declarations+="int part_$i(int); " calls+=" + part_$i(x)"
done
echo "#include <stdio.h>
$declarations
int main(void) { for (int x = 0; x < 5; x++) printf(\"%d\\n\", 0 $calls); }" > main.c
printf 'OBJECTS = $(patsubst %%.c,%%.o,$(wildcard *.c))\nprogram: $(OBJECTS)\n\t@cc -pipe -fno-use-linker-plugin -o $@ $^ && echo linked\n%%.o: %%.c FORCE\n\t@cc -pipe -O2 -c -o $@ $<\n.PHONY: FORCE\n' > Makefile
make -j2 && ./program
"##
    )
);
