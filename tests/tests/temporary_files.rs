//! Files that come and go: temporary ones, logs that are rotated, files that are replaced as a whole, journals of databases.

use ckpt_tests::{Job, survives};

/// Every line is in one of the logs, once, in its order.
const ROTATED: &str = r#"
import glob, logging, logging.handlers, time
handler = logging.handlers.RotatingFileHandler("log", maxBytes=400, backupCount=100)
log = logging.getLogger(); log.addHandler(handler); log.setLevel(logging.INFO)
for i in range(250):
    log.info("line %05d", i); time.sleep(0.01)
handler.close()
logs = sorted(glob.glob("log*"), key=lambda name: -int("0" + name[4:]))
print([line for name in logs for line in open(name)] == ["line %05d\n" % i for i in range(250)])
"#;

survives!(rotated_log, Job::script("/usr/bin/python3", ROTATED));

const TEMPORARY: &str = r#"
import os, tempfile, time
total = 0
for i in range(120):
    with tempfile.NamedTemporaryFile("w+", dir=".") as file:
        file.write(str(i)); file.flush(); time.sleep(0.005); file.seek(0); total += int(file.read())
    with tempfile.TemporaryDirectory(dir=".") as directory, open(directory + "/file", "w+") as file:
        file.write("y" * i); file.flush(); time.sleep(0.005); file.seek(0); total += len(file.read())
    with open("state.tmp", "w") as file: file.write(str(total)); file.flush(); time.sleep(0.005)
    os.replace("state.tmp", "state")
print(total, open("state").read())
"#;

survives!(temporary_files_of_python, Job::script("/usr/bin/python3", TEMPORARY));

// Nothing is asked for.
survives!(database_with_a_journal, Job::database("data.db", "delete"));
survives!(database_with_a_write_ahead_log, Job::database("data.db", "wal"));

/// Temporary files that are closed between two steps.
const SORTED: &str = r#"
mkdir -p tmp; seq 1 300000 | awk '{print ($1*7919)%1000003, $1}' > data
for i in 1 2 3; do sort -S 1M -T tmp data -o sorted; cksum < sorted; done
"#;

survives!(sort_with_temporaries, Job::script("bash", SORTED));

const MADE: &str = r#"
mkdir -p src/tmp; cd src; export TMPDIR=$PWD/tmp
for i in {1..8}; do printf '#include <stdio.h>\nint f%d(int x) { return x * %d; }\n' $i $i > f$i.c; done
printf '#include <stdio.h>\nint f3(int), f8(int);\nint main(void) { return printf("%%d\\n", f3(2) + f8(3)) < 0; }\n' > main.c
printf 'program: $(patsubst %%.c,%%.o,$(wildcard *.c))\n\tgcc -o $@ $^\n%%.o: %%.c\n\tgcc -O2 -c -o $@ $<\n' > Makefile
for round in 1 2 3; do rm -f *.o program; make -s -j2; ./program; done
"#;

survives!(make_and_gcc, Job::script("bash", MADE));

/// In each round the job works in a directory that it has made, and that it removes.
const WORKED_IN: &str = r#"
for i in {1..8}; do
    dir=$(mktemp -d -p "$PWD"); cd "$dir"; mkdir sub; seq $i 900 > sub/numbers; ln -s sub/numbers link; mkfifo pipe
    for j in {1..10}; do sleep 0.02; sort -n link | head -n 1; done
    ls; cd ..; rm -r "$dir"
done
"#;

survives!(directories_that_are_worked_in, Job::script("bash", WORKED_IN));
