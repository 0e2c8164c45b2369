//! The files of a job come back with it: whatever path it has made, written, cut, renamed, linked or removed is as it was at the checkpoint. The user's
//! other files are never touched, and nothing is lost of what a restart takes away.
//!
//! Most scripts here do what cannot be done twice: they raise a number in a file, or make what must not be there.

use std::fs::{self, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ckpt_tests::job::{IMAGES, seed};
use ckpt_tests::{FileTree, Identity, Job, Sandbox, Staged, as_either, files_survive, program_survives};

const PYTHON: &str = "/usr/bin/python3";

/// A bash job, checkpointed five times a second, that ends at the first command that fails.
fn bash(script: &str) -> Job {
    Job::in_directory("work", "bash", &format!("set -euo pipefail\n{script}")).interval("0.2")
}

/// The same of Python.
fn python(script: &str) -> Job {
    Job::in_directory("work", PYTHON, script).interval("0.2")
}

// Shell scripts.

files_survive!(lines_appended_in_a_loop, bash(r#"for i in {1..80}; do echo "line $i" >> log; sleep 0.03; done"#));

files_survive!(a_state_file, bash("echo 0 > state; for i in {1..80}; do n=$(<state); echo $((n + 1)) > state; sleep 0.03; done"));

/// A large one is a temporary file.
const HERE_DOCUMENTS: &str = r#"
big=$(seq 1 15000)
for i in {1..50}; do
  cat >> notes <<END
note $i, after $(wc -l < notes 2> /dev/null || echo none)
END
  tr a-z A-Z <<< "string $i" >> notes
  if [ $((i % 10)) = 0 ]; then cksum >> sums <<END
$big $i
END
  fi
  sleep 0.03
done
"#;

files_survive!(here_documents, bash(HERE_DOCUMENTS));

const SUBSHELLS: &str = r#"
for i in {1..40}; do
  ( echo "begin $i"; seq "$i" $((i + 2)) | tac; sleep 0.02; echo "end $i" ) >> log
  sleep 0.03
done
"#;

files_survive!(subshells_that_append, bash(SUBSHELLS));

files_survive!(
    parallel_commands_that_append,
    bash(r#"seq 1 70 | xargs -P2 -n1 sh -c 'sleep 0.06; echo "$0" >> done'; sort -n done > sorted; rm done"#)
);

const EDITED: &str = r#"
seq 1 60 > table
for i in {1..50}; do sed -i "s/^$i\$/& was here/; \$a more $i" table; sleep 0.04; done
"#;

files_survive!(files_edited_in_place, bash(EDITED));

const RENAMED: &str = r#"
echo 0 > state
for i in {1..60}; do
  n=$(<state); echo $((n + 1)) > state.tmp; sleep 0.02; mv state.tmp state
  if [ "$i" = 1 ]; then : > moved.1; else mv "moved.$((i - 1))" "moved.$i"; fi
  sleep 0.01
done
"#;

files_survive!(temporaries_renamed_over_a_state_file, bash(RENAMED));

const RECREATED: &str = r#"
for i in {1..70}; do
  if [ -e held ]; then read -r n < held; rm held; echo "$n was held" >> log; else (set -C; echo "$i" > held); fi
  (set -C; echo "$i" > "part.$i"); if [ "$i" -gt 4 ]; then rm "part.$((i - 4))"; fi
  sleep 0.03
done
"#;

files_survive!(files_removed_and_made_again, bash(RECREATED));

const MADE: &str = r#"
printf 'int f(int x) { return x * 7; }\n' > f.c
printf '#include <stdio.h>\n#include <stdlib.h>\nint f(int);\nint main(int n, char **v) { return printf("%%d\\n", f(atoi(v[n - 1]))) < 0; }\n' > main.c
printf 'program: f.o main.o\n\tgcc -o $@ $^\n%%.o: %%.c\n\tgcc -O2 -c -o $@ $<\nclean:\n\trm program f.o main.o\n' > Makefile
make -s
for i in {1..9}; do
  sleep 0.1; make -s clean; [ ! -e program ]; make -s; ./program "$i" >> results
  sed -i "s/x \* $((i + 6));/x * $((i + 7));/" f.c; grep -c "x \* $((i + 7))" f.c >> results
done
"#;

files_survive!(make_clean_and_make_in_a_loop, bash(MADE));

const UNPACKED: &str = r#"
mkdir tree tree/{a,b} tree/a/deep; for i in {1..20}; do seq "$i" 200 > "tree/b/$i"; echo "$i" > "tree/a/deep/$i"; done
chmod 750 tree/a; ln -s ../b/7 tree/a/link; ln tree/b/8 tree/hard
tar --sort=name --mtime=@1500000000 -cf archive.tar tree; rm -r tree
for i in {1..20}; do
  [ ! -e tree ]; tar xf archive.tar; echo "$i" >> tree/a/deep/1
  sleep 0.04; find tree -type f | sort | xargs cksum | cksum >> sums; rm -r tree; sleep 0.03
done
"#;

files_survive!(archives_unpacked_and_removed, bash(UNPACKED));

const ROTATED: &str = r#"
for i in {1..70}; do
  echo "line $i" >> log
  if [ $((i % 6)) = 0 ]; then
    for n in {12..1}; do if [ -e "log.$n" ]; then mv "log.$n" "log.$((n + 1))"; fi; done
    mv log log.1; sleep 0.02; : > log
  fi
  sleep 0.03
done
"#;

files_survive!(logs_that_are_rotated, bash(ROTATED));

const DIRECTORIES: &str = r#"
for i in {1..50}; do
  mkdir top top/{a,b} top/a/deep top/a/deep/deeper; echo "$i" > top/a/deep/deeper/file
  sleep 0.03
  rm top/a/deep/deeper/file; rmdir top/a/deep/deeper top/a/deep top/{a,b} top
  mkdir -m 710 "kept.$i"; echo "$i" > "kept.$i/number"
  if [ "$i" -gt 5 ]; then rm "kept.$((i - 5))/number"; rmdir "kept.$((i - 5))"; fi
done
"#;

files_survive!(directories_made_and_removed, bash(DIRECTORIES));

const LINKS: &str = r#"
echo 0 > file.0; ln -s file.0 current; ln file.0 hard.0
for i in {1..50}; do
  echo "$(<current) $i" > "file.$i"; ln -s "file.$i" "soft.$i"; ln "file.$i" "hard.$i"; ln -sfn "file.$i" current
  echo more >> "hard.$((i - 1))"
  if [ "$i" -gt 4 ]; then rm "file.$((i - 4))"; rm "soft.$((i - 4))"; fi
  if [ "$i" -gt 8 ]; then rm "hard.$((i - 8))"; fi
  sleep 0.03
done
"#;

files_survive!(links_made_and_removed, bash(LINKS));

const NAMED_PIPES: &str = r#"
for i in {1..50}; do
  mkfifo -m 620 "pipe.$i"; ( echo "through $i" > "pipe.$i" ) & read -r line < "pipe.$i"; wait $!; echo "$line" >> log
  sleep 0.04
  if [ "$i" -gt 3 ]; then rm "pipe.$((i - 3))"; fi
done
"#;

files_survive!(named_pipes, bash(NAMED_PIPES));

/// Whoever touches a file raises its time and its mode by what they were.
const TIMES_AND_MODES: &str = r#"
echo made > own; touch -d @1400000000 own; chmod 600 own
raise() { touch -d "@$(($(stat -c %Y "$1") + 1000))" "$1"; chmod "$(printf '%o' $(((0$(stat -c %a "$1") + 1) % 8 + 0640)))" "$1"; }
for i in {1..40}; do
  raise input; raise own
  echo "$i" > "step.$i"; touch -d "@$((1500000000 + i))" "step.$i"
  if [ "$i" -gt 3 ]; then stat -c '%n %a %Y' "step.$((i - 3))" >> log; chmod 444 "step.$((i - 3))"; fi
  sleep 0.02
done
touch -d @1600000000 log
"#;

files_survive!(modes_and_times, bash(TIMES_AND_MODES).file("work/input", "the user's").with_times());

const NAMES: &str = r#"
names=($'two\nlines' $'not \xff\xfe UTF-8' 'with  spaces ' '-n' 'log (deleted)' $'tab\tand\\backslash' "quote'\"" '%s' '*')
mkdir $'directory\n\xe9'
for i in {1..60}; do
  for name in "${names[@]}"; do echo "$i" >> "./$name"; done
  mkdir $'directory\n\xe9/'"$i"; mv ./'-n' $'directory\n\xe9/'"$i/-n"
  rm $'./two\nlines'; if [ "$i" -gt 3 ]; then rm -r $'directory\n\xe9/'"$((i - 3))"; fi
  sleep 0.03
done
"#;

files_survive!(names_of_every_kind, bash(NAMES));

/// The kernel marks files without a name so, in the places where it tells the names of open files.
const NAMED_DELETED: &str = r#"
exec 4> "log (deleted)"; for i in {1..60}; do echo "line $i" >&4; echo "$i" >> "closed (deleted)"; sleep 0.04; done; exec 4>&-
cp "log (deleted)" copy
"#;

files_survive!(names_that_end_as_those_of_deleted_files, bash(NAMED_DELETED));

/// Tools that write as shells do not: by descriptors that they have opened for reading too, by copies that the kernel makes, with times and modes kept.
const TOOLS: &str = r#"
seq 1 3000 > numbers; touch -d @1400000000 numbers; echo 0 > count
for i in {1..18}; do
  gzip -n numbers; sleep 0.02; gunzip numbers.gz
  cp -p numbers "copy.$i"; chmod 640 "copy.$i"; cat "copy.$i" | tail -n +2 | tee -a tail > /dev/null
  install -m 600 "copy.$i" "installed.$i"; if [ "$i" -gt 3 ]; then rm "copy.$((i - 3))" "installed.$((i - 3))"; fi
  tail -n 50 tail > short; mv short tail; shuf -i "1-$((i + 5))" --random-source=numbers >> mixed; sort -n mixed -o mixed
  split -l 1000 numbers "part.$i."; cat part."$i".* | cksum >> sums; rm part."$i".*
  awk -v i="$i" '{ print $1 + 1 > "count" } END { print i >> "said" }' < count
  dd if=numbers of=patched bs=100 count=1 seek="$i" conv=notrunc status=none
  sleep 0.02
done
touch -r numbers -d '+3 days' later
"#;

files_survive!(usual_tools, bash(TOOLS));

const DEEP: &str = r#"
for d in {1..64}; do mkdir "level.$d"; cd "level.$d"; echo "$d" > file; if [ $((d % 8)) = 0 ]; then sleep 0.1; fi; done
cd ../../../../../../../..; below=level.57/level.58/level.59/level.60/level.61/level.62/level.63/level.64
for i in {1..50}; do
  echo "$i" >> $below/file; if [ "$i" = 1 ]; then : > $below/moved.1; else mv $below/moved."$((i - 1))" $below/moved."$i"; fi
  if [ $((i % 10)) = 0 ]; then rm -r level.57/level.58/level.59; mkdir -p $below; echo again > $below/file; : > $below/moved."$i"; fi
  sleep 0.03
done
"#;

files_survive!(sixty_four_levels_of_directories, bash(DEEP));

/// One directory and then another has this name, and it is a name among others of the files in them.
const THROUGH_LINKS: &str = r#"
mkdir -p real/{a,b}/in; ln -s real/a alias; ln -s ../../real/b/in real/a/other
for i in {1..50}; do
  echo "$i" >> alias/log; echo "$i" >> alias/in/../in/log; echo "through $i" >> real/a/other/log
  (set -C; echo "$i" > "alias/in/$i"); sleep 0.03; mv "alias/in/$i" "alias/$i"; ln -sfn "real/$(((i + 1) % 2))" next
  if [ $((i % 2)) = 1 ]; then ln -sfn real/b alias; else ln -sfn ../work/real/a alias; fi
done
"#;

files_survive!(paths_through_symbolic_links, bash(THROUGH_LINKS));

files_survive!(
    commands_in_a_cleaned_environment,
    bash(
        r#"for i in {1..50}; do env -i sh -ec 'echo "$0" >> log; mkdir "dir.$0"; [ ! -e last ] || rm last; echo "$0" > last' "$i"; sleep 0.04; done"#
    )
);

/// As it is for who does not say where images go.
const BESIDE_IMAGES: &str = r#"
echo 0 > state
for i in {1..60}; do
  n=$(<state); echo $((n + 1)) > state.tmp; mv state.tmp state; echo "$i" >> ckpt_log; (set -C; : > ".ckpt_$i.files")
  sleep 0.04; if [ "$i" -gt 2 ]; then rm ".ckpt_$((i - 2)).files"; fi
done
"#;

files_survive!(files_beside_the_images, Job::in_directory(IMAGES, "bash", &format!("set -eu\n{BESIDE_IMAGES}")).interval("0.2"));

/// Nothing there can be linked, or be renamed to, from where the images are.
const OTHER_FILE_SYSTEM: &str = r#"
there=/dev/shm/$(basename "$(dirname "$PWD")"); mkdir "$there"; trap 'rm -rf "$there"' EXIT
for i in {1..50}; do
  echo "$i" >> "$there/log"; n=$(cat "$there/state" 2> none || echo 0); rm -f none; echo $((n + 1)) > "$there/state"
  (set -C; head -c 30000 /dev/zero > "$there/part.$i"); sleep 0.03; mv "$there/part.$i" .; mv "part.$i" "$there/done.$i"
  if [ "$i" -gt 3 ]; then rm "$there/done.$((i - 3))"; fi
done
cp -r "$there" result
"#;

files_survive!(files_of_another_file_system, bash(OTHER_FILE_SYSTEM));

const UNLINKED: &str = r#"
truncate -s 4999 size
for i in {1..50}; do
  (set -C; echo "$i" > "work.$i"); ln "work.$i" second; unlink "work.$i"; echo second >> second; sleep 0.03
  cat second >> log; unlink second
  truncate -s $((i * 1000)) sparse; truncate -s -1 size
done
"#;

files_survive!(files_unlinked_and_cut, bash(UNLINKED));

/// The user's own files are used only once there are images.
const INPUTS: &str = r#"
sleep 0.6
for i in {1..50}; do
  echo "$i" >> appended; n=$(<rewritten); echo $((n + 1)) > rewritten; sed -i "s/^$i$/seen/" edited
  printf '%4d' $(($(head -c 4 patched) + 1)) | dd of=patched conv=notrunc status=none
  if [ $((i % 5)) = 0 ]; then rm "removed.$i"; mv "renamed.$i" "renamed.$i.done"; fi
  sleep 0.02
done
"#;

fn inputs() -> Job {
    let edited: String = (1..=60).map(|i| format!("{i}\n")).collect();
    let mut job = bash(INPUTS).file("work/edited", edited).file("work/patched", format!("   0{}", "x".repeat(50_000)));
    job = job.file("work/appended", "of the user\n").file("work/rewritten", "0\n");
    (1..=10).map(|i| i * 5).fold(job, |job, i| {
        job.file(&format!("work/removed.{i}"), format!("removed {i}")).file(&format!("work/renamed.{i}"), format!("renamed {i}"))
    })
}

files_survive!(the_users_own_files, inputs());

// Python.

const PYTHON_APPENDS: &str = r#"
import time
for i in range(80):
    with open("log", "a") as log: log.write(f"line {i}\n")
    try: n = int(open("state").read())
    except FileNotFoundError: n = 0
    with open("state", "w") as state: state.write(str(n + 1))
    time.sleep(0.03)
"#;

files_survive!(python_opens_for_appending, python(PYTHON_APPENDS));

/// In the working directory and in that of temporary files.
const PYTHON_TEMPORARY: &str = r#"
import os, shutil, tempfile, time
open("state", "w").write("0")
for i in range(70):
    with tempfile.NamedTemporaryFile("w", dir="." if i % 2 else None, delete=False) as file: file.write(str(int(open("state").read()) + 1))
    time.sleep(0.01)
    shutil.move(file.name, "state")
    with tempfile.TemporaryDirectory() as directory:
        for part in "ab": open(os.path.join(directory, part), "w").write(part * i)
        time.sleep(0.01)
        open("log", "a").write("".join(sorted(os.listdir(directory))) + "\n")
    with tempfile.TemporaryFile() as file: file.write(b"x" * i); file.seek(0); open("log", "a").write(f"{len(file.read())}\n")
    time.sleep(0.01)
"#;

files_survive!(temporary_files_of_python, python(PYTHON_TEMPORARY));

const NUMPY: &str = r#"
import os, time
import numpy as np
np.save("state.npy", np.zeros(2000)); os.mkdir("steps")
for i in range(60):
    a = np.load("state.npy"); a[i::7] += i; np.save("state.npy", a)
    np.savez(f"steps/{i}.npz", a=a, total=a.sum())
    if i > 3: os.remove(f"steps/{i - 4}.npz")
    m = np.lib.format.open_memmap("mapped.npy", mode="r+" if i else "w+", dtype=np.int64, shape=(1000,)); m[i::11] += 1; m.flush(); del m
    time.sleep(0.03)
# The archives hold the time at which they were made.
for i in range(56, 60): a = np.load(f"steps/{i}.npz"); np.save(f"steps/{i}.npy", a["a"]); os.remove(f"steps/{i}.npz")
"#;

// The module takes a while to load.
files_survive!(arrays_of_numpy, python(NUMPY).interval("0.5"));

/// A database that is closed after every transaction: `JOURNAL` is its mode, `FILL` is what it holds first.
const DATABASE: &str = r#"
import random, sqlite3, time
r = random.Random(1)
def opened():
    db = sqlite3.connect("data.db", isolation_level=None)
    db.execute("pragma journal_mode=JOURNAL"); db.execute("pragma synchronous=off")
    return db
db = opened(); db.execute("create table t(id integer primary key, k text, v blob)"); db.execute("create index i on t(k)"); db.execute("begin")
for i in range(FILL): db.execute("insert into t values(?,?,?)", (i, "%08x" % r.getrandbits(32), r.randbytes(4000)))
db.execute("commit"); db.close()
n = FILL
for step in range(50):
    db = opened(); db.execute("begin immediate")
    for k in range(10):
        db.execute("insert into t values(?,?,?)", (n, "%08x" % r.getrandbits(32), r.randbytes(300))); n += 1
        db.execute("delete from t where id=?", (r.randrange(n),))
        time.sleep(0.002)
    db.execute("commit")
    time.sleep(0.02)
    if step % 10 == 0: print(step, db.execute("select count(*), max(id) from t").fetchone(), flush=True)
    db.close()
print(opened().execute("pragma integrity_check").fetchall())
"#;

fn database(journal: &str, fill: u32) -> Job {
    python(&DATABASE.replace("JOURNAL", journal).replace("FILL", &fill.to_string()))
}

files_survive!(database_with_a_journal, database("delete", 50));
files_survive!(database_with_a_write_ahead_log, database("wal", 50));

/// A database of 30 MB with transactions that last a while, one of which is open at most checkpoints.
const LARGE_DATABASE: &str = r#"
import random, sqlite3, time
r = random.Random(1)
db = sqlite3.connect("data.db", isolation_level=None)
db.execute("create table t(id integer primary key, k text, v blob)"); db.execute("create index i on t(k)"); db.execute("begin")
for i in range(6000): db.execute("insert into t values(?,?,?)", (i, "%08x" % r.getrandbits(32), r.randbytes(4000)))
db.execute("commit")
n = 6000
for step in range(10):
    db.execute("begin immediate")
    for k in range(40):
        db.execute("insert into t values(?,?,?)", (n, "%08x" % r.getrandbits(32), r.randbytes(300))); n += 1
        db.execute("delete from t where id=?", (r.randrange(n),))
        time.sleep(0.005)
    db.execute("commit")
    print(step, db.execute("select count(*), max(id) from t").fetchone(), flush=True)
print(db.execute("pragma integrity_check").fetchall())
"#;

files_survive!(a_database_of_30_megabytes, python(LARGE_DATABASE).interval("0.4"));

/// By numbers of directories, by paths relative to a directory that is renamed, and by the new names.
const DIRECTORY_DESCRIPTORS: &str = r#"
import os, time
def write(path, text, flags=os.O_APPEND | os.O_CREAT, **at):
    fd = os.open(path, os.O_WRONLY | flags, 0o640, **at); os.write(fd, text.encode()); os.close(fd)
os.mkdir("w0"); os.mkdir("beside"); os.chdir("w0"); above = os.open("..", os.O_RDONLY | os.O_DIRECTORY)
for i in range(60):
    write("log", f"{i}\n"); write("beside/log", f"{i}\n", dir_fd=above)
    os.rename(f"../w{i}", f"../w{i + 1}"); write("log", "renamed\n"); write(f"../w{i + 1}/log", "by its name\n")
    beside = os.open("beside", os.O_RDONLY | os.O_DIRECTORY, dir_fd=above)
    write(f"part.{i}", "part", os.O_CREAT | os.O_EXCL, dir_fd=beside)
    os.mkdir(f"sub.{i}", dir_fd=beside); os.symlink(f"part.{i}", f"sub.{i}/link", dir_fd=beside)
    os.rename(f"part.{i}", f"part.{i}.done", src_dir_fd=beside, dst_dir_fd=above)
    os.link(f"part.{i}.done", f"hard.{i}", src_dir_fd=above, dst_dir_fd=beside)
    if i > 3:
        os.unlink(f"hard.{i - 4}", dir_fd=beside); os.unlink(f"sub.{i - 4}/link", dir_fd=beside); os.rmdir(f"sub.{i - 4}", dir_fd=beside)
        os.chmod(f"part.{i - 4}.done", 0o600, dir_fd=above)
    os.close(beside); time.sleep(0.04)
"#;

files_survive!(directories_by_descriptor_and_renamed, python(DIRECTORY_DESCRIPTORS));

/// `FILES` files in all, made, appended to, and removed in part.
const MANY: &str = r#"
import os, time
files = FILES
for d in range(20): os.mkdir(f"d{d}")
name = lambda i: f"d{i % 20}/{i}"
for step in range(25):
    for i in range(step * files // 25, (step + 1) * files // 25):
        with open(name(i), "x") as file: file.write(f"made {i}\n")
        if i >= files // 10:
            with open(name(i - files // 10), "a") as file: file.write(f"appended after {i}\n")
        if i >= files // 5 and i % 3 == 0: os.remove(name(i - files // 5))
    time.sleep(0.09)
"#;

files_survive!(two_thousand_files, python(&MANY.replace("FILES", "2000")));
files_survive!(ten_thousand_files, python(&MANY.replace("FILES", "10000")));

/// Whole trees, with the times of their files; the copies are made by the kernel.
const PYTHON_COPIES: &str = r#"
import os, pathlib, shutil, time, zipfile
source = pathlib.Path("source"); (source / "a" / "b").mkdir(parents=True)
for i in range(12):
    file = source / ("a" if i % 2 else "a/b") / str(i); file.write_bytes(bytes([i]) * 3000 * i); os.utime(file, (1500000000 + i, 1500000000 + i))
    file.chmod(0o640 if i % 3 else 0o444)
for i in range(45):
    copy = pathlib.Path(f"copy.{i}"); shutil.copytree(source, copy); time.sleep(0.02)
    first = copy / "a" / "1"; first.write_text(first.read_text() + f"{i}\n"); shutil.copy2(first, source / "a" / "1")
    with zipfile.ZipFile("all.zip", "a") as archive: archive.writestr(zipfile.ZipInfo(f"{i}"), f"{i}" * i)
    with open("table", "r+b" if i else "w+b") as table: table.truncate(5000); table.seek(i * 90); table.write(b"%d" % len(table.read())); os.fsync(table)
    time.sleep(0.02)
    if i > 1: shutil.rmtree(f"copy.{i - 2}")
"#;

files_survive!(trees_copied_by_python, python(PYTHON_COPIES));

/// Two files of 20 MB: one that stays open, one that is opened for each step. Both are written in their midst, the one also through a mapping.
const LARGE: &str = r#"
import mmap, os, struct, time
size = 20_000_000
for name in ("open", "closed"):
    with open(name, "wb") as file: file.write(b"\1" * size)
def raise_(fd, at): os.pwrite(fd, struct.pack("<Q", struct.unpack("<Q", os.pread(fd, 8, at))[0] + 1), at)
stays = os.open("open", os.O_RDWR)
for step in range(40):
    for at in range(0, size, size // 40): raise_(stays, at)
    fd = os.open("closed", os.O_RDWR)
    for at in range(4096, size, size // 40): raise_(fd, at)
    with mmap.mmap(fd, size) as map: map[step * 100_000] = (map[step * 100_000] + 1) % 256; map[19_999_999] = (map[19_999_999] + 1) % 256
    os.close(fd); time.sleep(0.04)
"#;

files_survive!(large_files_changed_in_place, python(LARGE).interval("0.4"));

// C.

/// Programs that check themselves, in a directory of their own.
fn c(name: &str, rounds: u32, args: &[&str]) -> Job {
    Job::program(name, rounds, args).working_in("work").interval("0.2")
}

program_survives!(closed_files, Job::program("closed_files", 75, &[]).working_in("work").interval("0.2"));
program_survives!(written_files, Job::program("written_files", 60, &[]).working_in("work").interval("0.2"));

/// A child below another root; an ordinary user may only change its directory.
const BELOW_ANOTHER_ROOT: &str = r#"
import os, time
os.makedirs("jail/steps")
for i in range(40):
    pid = os.fork()
    if pid == 0:
        try: os.chroot("jail"); os.chdir("/")
        except PermissionError: os.chdir("jail")
        top = "/" if os.path.exists("/steps") else ""
        n = int(open(top + "state").read()) if i else 0
        open(top + "state", "w").write(str(n + 1)); open("log", "a").write(f"{i} {n}\n")
        time.sleep(0.02)
        open(f"{top}steps/{i}.new", "w").write("x" * i); os.rename(f"steps/{i}.new", f"{top}steps/{i % 7}")
        time.sleep(0.02)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    open("log", "a").write(f"{i}\n")
"#;

files_survive!(files_below_another_root, python(BELOW_ANOTHER_ROOT));

/// The same by one process that stays there.
const STAYS_BELOW_ANOTHER_ROOT: &str = r#"
import os, time
os.makedirs("jail/steps"); open("jail/given", "w").write("given")
log = open("log", "w")
pid = os.fork()
if pid == 0:
    try: os.chroot("jail"); os.chdir("/")
    except PermissionError: os.chdir("jail")
    open("state", "w").write("0")
    for i in range(60):
        n = int(open("state").read()); open("state", "w").write(str(n + 1))
        open(f"steps/{i}.new", "w").write(open("given").read() * i); os.rename(f"steps/{i}.new", f"steps/{i % 7}")
        open("given", "a").write(str(n % 3))
        if i % 7 == 5: os.remove("steps/2")
        log.write(f"{i} {n}\n"); log.flush()
        time.sleep(0.03)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"#;

files_survive!(a_process_below_another_root, python(STAYS_BELOW_ANOTHER_ROOT));

/// A file of HDF5 that is written in place, one data set grown and another made in each step, closed in between.
const HDF5: &str = r#"
import time
import h5py, numpy as np
with h5py.File("state.h5", "w") as f: f.create_dataset("x", data=np.zeros((0, 500)), maxshape=(None, 500), chunks=(4, 500)); f.attrs["step"] = 0
for i in range(60):
    with h5py.File("state.h5", "r+") as f:
        x = f["x"]; x.resize(i + 1, axis=0); x[i] = np.arange(500) + x[:i].sum() % 97
        time.sleep(0.01)
        f.create_dataset(f"step/{i}", data=x[i] * 2); f.attrs["step"] += 1
    time.sleep(0.02)
with h5py.File("state.h5", "r") as f:
    for i in range(60): print(i, f["x"][i].sum(), f[f"step/{i}"][()].sum())
    print(f.attrs["step"], sorted(f["step"]))
"#;

// The module takes a while to load.
files_survive!(data_sets_of_hdf5, python(HDF5).interval("0.5"));

/// A model that is saved after each step, over the one before.
const TORCH: &str = r#"
import os, time
import torch
torch.manual_seed(1); torch.set_num_threads(1)
model = torch.nn.Linear(20, 20); torch.save(model.state_dict(), "model.pt")
for i in range(60):
    model.load_state_dict(torch.load("model.pt"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1); optimizer.zero_grad()
    loss = ((model(torch.ones(20) * (i % 5)) - torch.arange(20.0)) ** 2).mean(); loss.backward(); optimizer.step()
    torch.save(model.state_dict(), "model.pt")
    torch.save({"step": i, "model": model.state_dict()}, f"step{i}.tmp"); os.rename(f"step{i}.tmp", f"step{i % 3}.pt")
    open("losses", "a").write(f"{i} {loss.item():.6f}\n")
    time.sleep(0.02)
# The archives hold the name of the file that they were written to.
print({name: [p.sum().item() for p in torch.load(name)["model"].values()] for name in ("step0.pt", "step1.pt", "step2.pt")})
print(torch.load("model.pt")["weight"].sum().item())
"#;

files_survive!(models_of_torch, python(TORCH).interval("0.5"));

/// Variables saved after each step, a table grown line by line, and a file that is kept open.
const R: &str = r#"
saveRDS(list(n = 0), "state.rds"); dir.create("steps"); log <- file("log", "w")
for (i in 1:60) {
    state <- readRDS("state.rds"); state$n <- state$n + i; state$x <- c(state$x, state$n %% 7); saveRDS(state, "state.rds")
    write.table(data.frame(i = i, n = state$n), "table.csv", append = i > 1, sep = ",", col.names = i == 1, row.names = FALSE)
    x <- state$x; save(x, file = "new.rda"); file.rename("new.rda", sprintf("steps/%d.rda", i %% 5))
    cat("line", i, state$n, "\n", file = log); flush(log)
    cat(i, "\n", file = "count", append = TRUE)
    Sys.sleep(0.03)
}
close(log); print(sum(state$x))
"#;

files_survive!(variables_saved_by_r, Job::in_directory("work", "Rscript", R).interval("0.4"));

/// Files written whole, appended to, replaced atomically, mapped, and walked over.
const JAVA: &str = r#"
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.*;
import java.util.List;
import static java.nio.file.StandardOpenOption.*;

public class Steps {
    public static void main(String[] args) throws Exception {
        Path state = Path.of("state"), log = Path.of("log"), steps = Files.createDirectory(Path.of("steps"));
        Files.writeString(state, "0");
        for (int i = 0; i < 60; i++) {
            int n = Integer.parseInt(Files.readString(state)) + i;
            Files.write(state, List.of(Integer.toString(n)).toString().replaceAll("[^0-9]", "").getBytes());
            Files.writeString(log, "step " + i + " " + n + "\n", CREATE, APPEND);
            Path next = Files.createTempFile(steps, "step", ".tmp");
            Files.write(next, ("contents " + n).getBytes());
            Files.move(next, steps.resolve("step" + i % 7), StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
            if (i % 7 == 6) Files.delete(steps.resolve("step3"));
            try (FileChannel channel = FileChannel.open(Path.of("mapped"), CREATE, READ, WRITE)) {
                ByteBuffer page = channel.map(FileChannel.MapMode.READ_WRITE, 0, 4096);
                page.putInt(4 * (i % 100), page.getInt(0) + n); page.putInt(0, page.getInt(0) + 1);
            }
            Thread.sleep(20);
        }
        System.out.println(Files.readString(state));
    }
}
"#;

fn java() -> Job {
    let job =
        Job::new("java -Xmx64m -XX:TieredStopAtLevel=1 -cp .. Steps".split(' ')).working_in("work").file("Steps.java", JAVA);
    job.prepared_by("javac Steps.java").interval("0.4")
}

files_survive!(files_of_java, java());

/// Units opened for each step: appended to, rewritten, and one of direct access that is changed in place.
const FORTRAN: &str = r#"
program steps
  implicit none
  integer :: i, n, record, values(16)
  open(10, file='state', status='new'); write(10, *) 0; close(10)
  do i = 1, 80
    open(10, file='state', status='old'); read(10, *) n; close(10)
    n = n + i
    open(10, file='state', status='replace'); write(10, *) n; close(10)
    open(11, file='energies', position='append'); write(11, '(i0, 1x, i0)') i, n; close(11)
    open(12, file='direct', access='direct', form='unformatted', recl=64)
    record = 1 + mod(i, 9)
    values = 0; if (i > 9) read(12, rec=record) values
    values = values + n; write(12, rec=record) values; close(12)
    open(13, file='scratch', form='unformatted'); write(13) values; close(13, status='delete')
    call execute_command_line('sleep 0.02')
  end do
  print *, n
end program
"#;

fn fortran() -> Job {
    let job = Job::new(["../steps"]).working_in("work").file("steps.f90", FORTRAN);
    job.prepared_by("gfortran -o steps steps.f90").interval("0.2")
}

files_survive!(units_of_fortran, fortran());

/// Rules that make, append, and clean up, by workers that come and go.
const SNAKEFILE: &str = r#"
rule all:
    input: "total"
rule part:
    output: "parts/{n}"
    shell: "echo {wildcards.n} > {output}.new; sleep 0.1; seq {wildcards.n} >> {output}.new; mv {output}.new {output}"
rule sum:
    input: "parts/{n}"
    output: temp("sums/{n}")
    shell: "awk '{{ s += $1 }} END {{ print s }}' {input} > {output}; rm -f sums/last; ln -s {wildcards.n} sums/last"
rule total:
    input: expand("sums/{n}", n=range(1, 13))
    output: "total"
    shell: "cat {input} | sort -n > {output}; rm sums/last"
"#;

/// What Snakemake writes of its own (times, the paths of the sandbox) goes at the end.
fn snakemake() -> Job {
    let job = Job::in_directory("work", "bash", "set -eu; snakemake -q -j1 -s ../Snakefile; rm -r .snakemake")
        .file("Snakefile", SNAKEFILE);
    job.env("HOME", "/nonexistent").env("XDG_CACHE_HOME", "/tmp").interval("0.5")
}

files_survive!(a_pipeline_of_snakemake, snakemake());

files_survive!(
    workers_of_gnu_parallel,
    bash(
        "export HOME=$PWD; seq 60 | parallel --will-cite -j2 'echo {} > part.{}; sleep 0.05; cat part.{} >> done; rm part.{}'; rm -rf .parallel; sort -n -o done done"
    )
);

files_survive!(files_closed_between_two_steps, c("closed_files", 75, &[]));

files_survive!(files_written_by_unusual_calls, c("written_files", 60, &[]));

// One step at a time.

as_either! {
    input_files_come_back the_other_job_in_the_directory_is_left_alone a_file_with_a_similar_name_is_left_alone
    a_file_in_a_directory_of_the_job_is_not_lost an_edit_is_set_aside
    what_replaced_a_file_is_set_aside_whole two_restarts_of_one_image each_generation_has_its_files the_newer_generation_after_the_older
    a_restart_of_a_restart a_refused_restart_leaves_the_files a_file_where_a_killed_run_had_one_is_left_alone
    a_restart_that_is_killed_is_done_again names_of_one_file_that_was_half_made_again a_directory_that_has_moved what_was_set_aside_stays_where_the_job_fails
}

/// What a job of two stages does first: a file of each kind.
const MAKES: &str = "echo 1 > state; echo one > log; mkdir dir; echo in > dir/file; ln -s dir/file link; ln log hard; mkfifo pipe; echo gone > removed; \
    echo old > renamed; chmod 600 log; touch -d @1500000000 dir/file";

/// What it does then, to each of them.
const CHANGES: &str = "echo 2 > state; echo two >> log; rm -r dir; rm link pipe hard removed; mv renamed other; mkdir new; echo new > new/file; \
    ln -s new/file link; chmod 640 state";

/// What it does at last.
const CHANGES_MORE: &str = "echo 3 > state; rm -r new; mkdir dir; echo three >> log; echo back > renamed; mv -f state final";

fn input_files_come_back(identity: Identity) {
    let names =
        ["appended", "rewritten", "removed", "renamed", "edited", "patched", "replaced", "cut", "moded", "touched", "linked"];
    let files: Vec<_> = names.iter().map(|name| (*name, "the user's own\nand more\n")).collect();
    let sandbox = Staged::sandbox(identity, &files);
    let changes = "echo more >> appended; echo new > rewritten; rm removed; mv renamed elsewhere; sed -i s/own/OWN/ edited
        printf XX | dd of=patched conv=notrunc seek=3 bs=1 status=none; echo other > tmp; mv tmp replaced; truncate -s 3 cut; chmod 400 moded
        touch -d @1234567890 touched; ln linked second; echo new > removed.too";
    let mut job = Staged::launch(&sandbox, "job", &[], &["sleep 0.1", changes, "cat appended > copy"]);
    let (image, files) = job.checkpoint();
    job.reach(2);
    assert!(!files.differences(&job.files(), true).is_empty());
    job.kill();
    let said = job.restart(&[&image]);
    files.compare(&job.files(), true, &said);
    job.reach(2);
    job.ends_well();
    assert_eq!(sandbox.read_text("work/copy"), "the user's own\nand more\nmore\n");
}

fn the_other_job_in_the_directory_is_left_alone(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    let stages = |name: &str| {
        [format!("echo 1 > {name}.state"), format!("echo 2 > {name}.state; echo two >> {name}.log; mkdir {name}.dir")]
    };
    let (first, second) = (stages("first"), stages("second"));
    let launch = |name, stages: &[String; 2]| Staged::launch(&sandbox, name, &[], &[&stages[0], &stages[1], "true"]);
    let (mut first, mut second) = (launch("first", &first), launch("second", &second));
    let (image, files) = first.checkpoint();
    let (others_image, others_files) = second.checkpoint();
    first.reach(2);
    second.reach(2);
    let changed = second.files();
    first.kill();
    let said = first.restart(&[&image]);
    files.with("first").compare(&first.files().with("first"), true, &said);
    changed.with("second").compare(&first.files().with("second"), true, &said);
    // The other one has its own list.
    second.kill();
    let first_files = first.files().with("first");
    let said = second.restart(&[&others_image]);
    others_files.with("second").compare(&second.files().with("second"), true, &said);
    first_files.compare(&second.files().with("first"), true, &said);
    assert_eq!(first.end(), 0);
    second.ends_well();
    assert_eq!((sandbox.read_text("work/first.log"), sandbox.read_text("work/second.log")), ("two\n".into(), "two\n".into()));
}

/// Bytes, times and the very file.
fn very_file(path: &Path) -> (Vec<u8>, SystemTime, u64) {
    let meta = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (fs::read(path).expect("read"), meta.modified().expect("a time"), meta.ino())
}

fn a_file_with_a_similar_name_is_left_alone(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[("state.bak", "before")]);
    let mut job = Staged::launch(&sandbox, "job", &[], &[MAKES, CHANGES, "true"]);
    let (image, files) = job.checkpoint();
    job.reach(2);
    job.kill();
    // Before the launch, after the checkpoint, after the kill; also in a directory of the job's.
    let names = ["state.bak", "state~", ".state", "states", "log.1", "new.file", "dir2"];
    let mut kept = Vec::new();
    for name in names {
        let path = sandbox.write(&format!("work/{name}"), format!("the user's {name}"));
        fs::File::open(&path)
            .expect("a file")
            .set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_300_000_000)))
            .expect("times");
        kept.push((very_file(&path), path));
    }
    let said = job.restart(&[&image]);
    for (before, path) in &kept {
        assert!(*before == very_file(path), "{} was touched\n{said}", path.display());
    }
    files.with("/").compare(&job.files().with("/"), true, &said);
    job.ends_well();
    for (before, path) in &kept {
        assert!(*before == very_file(path), "{} was touched", path.display());
    }
}

fn a_file_in_a_directory_of_the_job_is_not_lost(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    let changes = "rm before/file; echo new > before/new; mkdir after; echo new > after/new";
    let mut job = Staged::launch(&sandbox, "job", &[], &["mkdir before; echo 1 > before/file", changes, "true"]);
    let (image, _) = job.checkpoint();
    job.reach(2);
    let (before, after) = (sandbox.write("work/before/users", "one"), sandbox.write("work/after/users", "two"));
    let was = very_file(&before);
    job.kill();
    let said = job.restart(&[&image]);
    assert!(was == very_file(&before), "the user's file in a directory that was there at the checkpoint was touched\n{said}");
    assert_eq!(
        (sandbox.read_text("work/before/file"), sandbox.read_text("work/after/new")),
        ("1\n".into(), String::new()),
        "{said}"
    );
    assert!(!sandbox.join("work/before/new").exists(), "{said}");
    // The directory of the other one was not there then.
    let kept = after.exists() || job.set_aside(&said).contents("users").contains(&&b"two"[..]);
    assert!(kept, "the user's file in a directory that was made after the checkpoint is lost\n{said}");
    assert_eq!(job.end(), 0);
}

/// A job that has made its files and changed them, and was killed: with what it had at the checkpoint.
fn changed<'a>(sandbox: &'a Sandbox, options: &[&str]) -> (Staged<'a>, PathBuf, FileTree) {
    let mut job = Staged::launch(sandbox, "job", options, &[MAKES, CHANGES, CHANGES_MORE, "true"]);
    let (image, files) = job.checkpoint();
    job.reach(2);
    job.kill();
    (job, image, files)
}

/// The bytes that were set aside, of files whose names hold a text, hold these.
#[track_caller]
fn holds(aside: &FileTree, name: &str, bytes: &[u8], said: &str) {
    assert!(
        aside.contents(name).contains(&bytes),
        "{:?} was not set aside as {name}, but {aside:?}\n{said}",
        bytes.escape_ascii().to_string()
    );
}

fn an_edit_is_set_aside(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    let (mut job, image, files) = changed(&sandbox, &[]);
    // One that the job has changed since the checkpoint, one that it had made before, and one that it has made since.
    sandbox.write("work/state", "edited by the user\n");
    sandbox.write("work/log", "the user's log\n");
    sandbox.write("work/new/file", "the user's, too\n");
    let said = job.restart(&[&image]);
    files.compare(&job.files(), true, &said);
    let aside = job.set_aside(&said);
    holds(&aside, "state", b"edited by the user\n", &said);
    holds(&aside, "log", b"the user's log\n", &said);
    holds(&aside, "file", b"the user's, too\n", &said);
    // Where it was not the job that wrote last, a line says so by name.
    assert!(said.lines().any(|line| line.starts_with("ckpt:") && line.contains("work/state")), "no line names state:\n{said}");
    job.ends_well();
}

fn what_replaced_a_file_is_set_aside_whole(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    let (mut job, image, files) = changed(&sandbox, &[]);
    // It begins as the job's own does.
    let others = format!("{}another process's\n", sandbox.read_text("work/log"));
    sandbox.write("other", &others);
    fs::rename(sandbox.join("other"), sandbox.join("work/log")).expect("replaced");
    let said = job.restart(&[&image]);
    files.compare(&job.files(), true, &said);
    holds(&job.set_aside(&said), "log", others.as_bytes(), &said);
    job.ends_well();
}

fn two_restarts_of_one_image(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    let (mut job, image, files) = changed(&sandbox, &[]);
    let at_two = job.files();
    for _ in 0..2 {
        let said = job.restart(&[&image]);
        files.compare(&job.files(), true, &said);
        holds(&job.set_aside(&said), "state", b"2\n", &said);
        job.reach(2);
        at_two.compare(&job.files(), false, &said);
        job.reach(3);
        job.kill();
    }
    let said = job.restart(&[&image]);
    files.compare(&job.files(), true, &said);
    job.ends_well();
    assert_eq!(sandbox.read_text("work/final"), "3\n");
}

/// A job with an image of its first stage and one of its second, killed in its third.
fn two_generations(sandbox: &Sandbox) -> (Staged<'_>, [(PathBuf, FileTree); 2]) {
    let mut job = Staged::launch(sandbox, "job", &["--keep", "2"], &[MAKES, CHANGES, CHANGES_MORE, "true"]);
    let first = job.checkpoint();
    job.reach(2);
    let second = job.checkpoint();
    job.reach(3);
    job.kill();
    (job, [first, second])
}

fn each_generation_has_its_files(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    let (mut job, generations) = two_generations(&sandbox);
    for (image, files) in generations.iter().rev() {
        let said = job.restart(&[image]);
        files.compare(&job.files(), true, &said);
        job.kill();
    }
    let (image, files) = &generations[0];
    let said = job.restart(&[image]);
    files.compare(&job.files(), true, &said);
    job.ends_well();
}

fn the_newer_generation_after_the_older(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    let (mut job, generations) = two_generations(&sandbox);
    for (image, files) in &generations {
        let said = job.restart(&[image]);
        files.compare(&job.files(), true, &said);
        job.kill();
    }
    let said = job.restart(&[&generations[1].0]);
    generations[1].1.compare(&job.files(), true, &said);
    // What the older one printed and the newer does not print again is set aside, and stays.
    assert_eq!(job.end(), 0);
}

fn a_restart_of_a_restart(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    let (mut job, image, files) = changed(&sandbox, &[]);
    let said = job.restart(&[&image]);
    files.compare(&job.files(), true, &said);
    job.reach(2);
    let (image, files) = job.checkpoint();
    job.reach(3);
    job.kill();
    let said = job.restart(&[&image]);
    files.compare(&job.files(), true, &said);
    let (image, files) = job.checkpoint();
    job.reach(3);
    job.kill();
    let said = job.restart(&[&image]);
    files.compare(&job.files(), true, &said);
    job.ends_well();
    assert_eq!(sandbox.read_text("work/log"), "one\ntwo\nthree\n");
}

fn a_file_where_a_killed_run_had_one_is_left_alone(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    // No run gives it the same name.
    let mut job = Staged::launch(&sandbox, "job", &[], &[MAKES, "echo two > passing.$(date +%N)", "echo three >> log", "true"]);
    let (image, _) = job.checkpoint();
    job.reach(2);
    let mut names = fs::read_dir(sandbox.join("work")).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let name = names.find(|name| name.to_string_lossy().starts_with("passing.")).expect("the job's file");
    let name = format!("work/{}", name.to_string_lossy());
    job.kill();
    let said = job.restart(&[&image]);
    assert!(!sandbox.join(&name).exists(), "{name} is still there\n{said}");
    sandbox.write(&name, "the user's");
    job.reach(2);
    let (image, _) = job.checkpoint();
    let path = sandbox.write(&name, "edited by the user");
    let was = very_file(&path);
    job.reach(3);
    job.kill();
    let said = job.restart(&[&image]);
    assert!(path.exists() && was == very_file(&path), "the user's {name} was touched\n{said}");
    job.ends_well();
}

fn a_refused_restart_leaves_the_files(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    let sleeper = sandbox.write("sleeper", fs::read("/bin/sleep").expect("a program"));
    let stages = [&format!("../sleeper 1000 & {MAKES}"), CHANGES, CHANGES_MORE, "kill %1"];
    let mut job = Staged::launch(&sandbox, "job", &[], &stages);
    let (image, at_checkpoint) = job.checkpoint();
    job.reach(2);
    job.kill();
    let at_kill = job.files();
    // The program of one of its processes is gone.
    fs::rename(&sleeper, sandbox.join("away")).expect("moved");
    let (code, said) = job.refused_restart(&[&image]);
    assert!(code == 122 && said.contains("sleeper"), "{code}: {said}");
    at_kill.compare(&job.files(), true, &said);
    assert_eq!(job.aside(), Vec::<PathBuf>::new(), "{said}");
    fs::rename(sandbox.join("away"), &sleeper).expect("moved");
    let said = job.restart(&[&image]);
    at_checkpoint.compare(&job.files(), true, &said);
    job.ends_well();
}

fn a_restart_that_is_killed_is_done_again(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    let makes = "mkdir many; for i in {1..400}; do echo $i > many/$i; done";
    let changes = "for i in {1..400}; do if ((i % 3)); then echo more >> many/$i; mv many/$i many/$i.old; else rm many/$i; fi; done; mv many moved";
    let mut job = Staged::launch(&sandbox, "job", &[], &[makes, changes, "cat moved/*.old | wc -c"]);
    let (image, files) = job.checkpoint();
    job.reach(2);
    job.kill();
    let mut moments = fastrand::Rng::with_seed(seed());
    for _ in 0..6 {
        job.killed_restart(&[&image], Duration::from_millis(moments.u64(5..150)));
    }
    let said = job.restart(&[&image]);
    files.compare(&job.files(), true, &said);
    job.ends_well();
}

/// A restart that was killed has made one name of a file again, and not the other.
fn names_of_one_file_that_was_half_made_again(identity: Identity) {
    for made in ["log", "hard"] {
        let sandbox = Staged::sandbox(identity, &[]);
        let (mut job, image, files) = changed(&sandbox, &[]);
        fs::remove_file(sandbox.join("work/log")).expect("removed");
        sandbox.write(&format!("work/{made}"), "one\n");
        let said = job.restart(&[&image]);
        files.compare(&job.files(), true, &said);
        job.ends_well();
    }
}

fn a_directory_that_has_moved(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[("input", "of the user")]);
    let mut job = Staged::launch(&sandbox, "job", &[], &[MAKES, CHANGES, "echo more >> input", "true"]);
    let (image, files) = job.checkpoint();
    job.reach(3);
    job.kill();
    let moved = job.move_to("moved");
    // Somebody has put something else in the old place.
    sandbox.make_dir("work");
    let other = sandbox.write("work/state", "another's");
    let was = very_file(&other);
    let said = job.restart(&[&image]);
    files.compare(&job.files(), true, &said);
    assert!(was == very_file(&other), "what is in the old place was touched\n{said}");
    job.ends_well();
    assert_eq!(fs::read_to_string(moved.join("input")).expect("read"), "of the usermore\n");
    assert_eq!(fs::read_dir(sandbox.join("work")).expect("listed").count(), 1, "something was put into the old place\n{said}");
}

fn what_was_set_aside_stays_where_the_job_fails(identity: Identity) {
    let sandbox = Staged::sandbox(identity, &[]);
    let mut job = Staged::launch(&sandbox, "job", &[], &[MAKES, CHANGES, "exit 3"]);
    let (image, _) = job.checkpoint();
    job.reach(2);
    job.kill();
    let said = job.restart(&[&image]);
    holds(&job.set_aside(&said), "state", b"2\n", &said);
    assert_eq!(job.end(), 3, "{said}");
    holds(&job.set_aside(&said), "state", b"2\n", &said);
}
