//! `--save-files`: scratch files that the image holds, for a machine that does not have them, or that has them as they were
//! later.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ckpt_tests::job::{IMAGES, await_image};
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, Sandbox, as_either, survives, tool};

/// A job whose scratch directory holds something of every kind, and whose output tells when anything is lost or doubled.
const SCRIPT: &str = r#"
umask 027
mkdir -p scratch/sub/empty scratch/others; cd scratch
ln -s sub/counter link; mkfifo pipe; exec 5<> pipe
truncate -s 30M sparse; printf data | dd of=sparse conv=notrunc bs=1 seek=20000000 2> /dev/null
echo 0 > sub/counter; chmod 600 sub/counter; touch -d @1500000000 old; mkdir -m 1770 sticky
exec 3>> appended 4> "$PWD/written"
for i in {1..50}; do
  n=$(<link); echo $((n + 1)) > sub/counter; echo "$i" >&3; echo "$i" >&4
  mkdir "others/$i" && echo "$i" > "others/$i/file"; rm -rf "others/$((i - 3))"
  echo "$i" >&5; read -r -t 5 back <&5; [[ $back == "$i" ]] || echo "the pipe gave $back"
  sleep 0.05
done
cat sub/counter; cksum < appended; cksum < written; cksum < sparse; cat others/*/file
stat -c '%n %a %F' sub/counter sub/empty link pipe old sticky; stat -c %Y old
[[ $(stat -c %b sparse) -lt 1000 ]] && echo "the hole is one"
"#;

fn job() -> Job {
    Job::script("bash", SCRIPT).option("--save-files").option("scratch")
}

survives!(scratch_is_rolled_back_in_place, job());

survives!(database_in_scratch, Job::database("scratch/data.db", "delete").option("--save-files").option("scratch/data.db*"));

as_either! {
    machines_without_the_scratch scratch_that_is_mapped only_the_images_are_carried scratch_on_another_path
    a_restart_that_fails_leaves_nothing something_else_in_the_place images_are_not_saved_in_images an_unreadable_file_is_named
    inspect_shows_them
}

fn restart(sandbox: &Sandbox, images: &[PathBuf], options: &[&str]) -> (i32, String, String) {
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.args(options).args(images);
    sandbox.finish(command)
}

/// Three machines, none with anything of the scratch directory.
fn chain_without(identity: Identity, job: &Job, scratch: &str) {
    let plain = job.run_plain(identity);
    let sandbox = job.sandbox(identity);
    let mut running = job.launch(&sandbox);
    let mut newest = None;
    for run in 1..=3 {
        newest = Some(await_image(&sandbox, &mut running, newest));
        running.kill();
        fs::remove_dir_all(sandbox.join(scratch)).expect("the scratch directory goes");
        running = job.restart(&sandbox, &sandbox.images(IMAGES), run);
    }
    let code = running.wait(BOUND);
    job.compare(&plain, &job.output(&sandbox, code, 4));
}

fn machines_without_the_scratch(identity: Identity) {
    chain_without(identity, &job(), "scratch");
}

/// Files that are mapped privately and shared, watched and locked.
fn scratch_that_is_mapped(identity: Identity) {
    let script = r#"
import fcntl, mmap, os, struct, time
os.makedirs("scratch")
with open("scratch/table", "wb") as table: table.write(bytes(range(256)) * 64)
with open("scratch/table", "rb") as table: private = mmap.mmap(table.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
private[5] = 99
shared = open("scratch/shared", "w+b"); shared.truncate(65536)
mapped = mmap.mmap(shared.fileno(), 65536)
fcntl.flock(shared, fcntl.LOCK_EX)
os.mkfifo("scratch/pipe"); pipe = os.open("scratch/pipe", os.O_RDWR)
for i in range(1, 81):
    struct.pack_into("Q", mapped, i * 8, i)
    with open("scratch/table", "r+b") as table: table.seek(4096 + i); table.write(b"!")
    assert private[4096 + i] == ord("!") and private[i] == (99 if i == 5 else i), i
    time.sleep(0.03)
with open("scratch/table", "rb") as table: print(sum(table.read()))
print(sum(struct.unpack_from("81Q", mapped)), sum(struct.unpack("81Q", open("scratch/shared", "rb").read(648))))
"#;
    chain_without(identity, &Job::script("/usr/bin/python3", script).option("--save-files").option("scratch"), "scratch");
}

/// As HTCondor does it with `transfer_checkpoint_files`: nothing is in the fresh directory but what the job was to have there.
fn only_the_images_are_carried(identity: Identity) {
    let plain = job().run_plain(identity);
    let sandbox = Sandbox::new(identity);
    sandbox.make_dir("dir_1");
    sandbox.write("dir_1/script", SCRIPT);
    let mut command = sandbox.command(tool("ckpt-launch"));
    command.current_dir(sandbox.join("dir_1")).args(["-i", "0.3", "-d", "ckpt", "--save-files", ".", "--", "bash", "script"]);
    let mut running = sandbox.start(command, "out", false, "err.1");
    for run in 1..=3 {
        let (old, new) = (format!("dir_{run}"), format!("dir_{}", run + 1));
        let images = |dir: &str| sandbox.images(&format!("{dir}/ckpt"));
        let newest = images(&old).pop();
        let find = |running: &mut ckpt_tests::Running| {
            assert!(running.ended().is_none(), "ended before an image\n{}", running.stderr());
            images(&old).pop().filter(|image| run == 1 || Some(image) != newest.as_ref())
        };
        running.until("an image", BOUND, find);
        running.kill();
        sandbox.make_dir(&new);
        fs::rename(sandbox.join(&old).join("ckpt"), sandbox.join(&new).join("ckpt")).expect("the images are carried");
        fs::remove_dir_all(sandbox.join(&old)).expect("the old directory goes");
        let mut command = sandbox.command(tool("ckpt-restart"));
        command.current_dir(sandbox.join(&new)).args(images(&new));
        running = sandbox.start(command, "out", true, &format!("err.{}", run + 1));
    }
    let code = running.wait(BOUND);
    let said: String = (1..=4).map(|run| sandbox.read_text(&format!("err.{run}"))).collect();
    assert_eq!(code, 0, "{said}");
    assert_eq!(sandbox.read_text("out"), String::from_utf8_lossy(&plain.stdout), "{said}");
}

/// The scratch directory of the next batch job has another name.
fn scratch_on_another_path(identity: Identity) {
    let script = r#"
SCRATCH=${SCRATCH:-$PWD/scratch}; mkdir "$SCRATCH"; cd "$SCRATCH"; exec 3>> "$SCRATCH/log"; echo 0 > counter
for i in {1..40}; do n=$(<counter); echo $((n + 1)) > counter; echo "$i" >&3; sleep 0.05; done
cat counter; cksum < log"#;
    let job = Job::script("bash", script);
    let plain = job.run_plain(identity);
    let sandbox = job.sandbox(identity);
    let scratch = |number: u32| sandbox.join(format!("scratch.{number}"));
    let job = job.env("SCRATCH", scratch(1)).option("--save-files").option(scratch(1).join("*"));
    let mut running = job.launch(&sandbox);
    let mut newest = None;
    for run in 1..=3 {
        newest = Some(await_image(&sandbox, &mut running, newest));
        running.kill();
        fs::remove_dir_all(scratch(run)).expect("the scratch directory goes");
        let mut command = sandbox.command(tool("ckpt-restart"));
        command.arg("--map").arg(format!("{}={}", scratch(run).display(), scratch(run + 1).display()));
        command.args(sandbox.images(IMAGES));
        running = sandbox.start(command, "out", true, &format!("err.{run}"));
    }
    let code = running.wait(BOUND);
    job.compare(&plain, &job.output(&sandbox, code, 4));
    assert!(!scratch(1).exists() && scratch(4).join("log").exists());
}

fn a_restart_that_fails_leaves_nothing(identity: Identity) {
    let script = "mkdir -p scratch/sub; exec 3> scratch/sub/log; while read -r line && [[ $line != end ]]; do echo $line >&3; sleep 0.02; done < data; cat scratch/sub/log";
    let data: String = (1..=100).map(|i| format!("{i}\n")).collect();
    // Too large to be held, since it is only read.
    let large = format!("{data}end\n{}", "x".repeat(17 << 20));
    let job = Job::new(["bash", "-c", script]).file("data", &large).option("--save-files").option("scratch/s*").interval("0.6");
    let sandbox = job.sandbox(identity);
    sandbox.make_dir("elsewhere");
    let images = job.killed(&sandbox);
    fs::remove_dir_all(sandbox.join("scratch")).expect("the scratch directory goes");
    fs::rename(sandbox.join("data"), sandbox.join("elsewhere/data")).expect("moved");
    let (code, _, err) = restart(&sandbox, &images, &[]);
    assert!(code == 122 && err.contains("data, which process"), "{code}: {err}");
    assert!(!err.contains("scratch"), "what the image holds is not missing: {err}");
    assert!(!sandbox.join("scratch").exists(), "something was left");
    fs::rename(sandbox.join("elsewhere/data"), sandbox.join("data")).expect("moved back");
    let (code, out, err) = restart(&sandbox, &images, &[]);
    assert_eq!((code, out.as_str()), (0, data.as_str()), "{err}");
}

fn something_else_in_the_place(identity: Identity) {
    let script = "echo one > scratch/file; for i in {1..40}; do sleep 0.05; done; cat scratch/file";
    let job = Job::new(["bash", "-c", script]).option("--save-files").option("scratch/file").interval("0.6");
    let sandbox = job.sandbox(identity);
    let scratch = sandbox.make_dir("scratch");
    let images = job.killed(&sandbox);
    fs::remove_file(scratch.join("file")).expect("removed");
    sandbox.make_dir("scratch/file");
    let other = sandbox.write("scratch/file/inside", "other");
    // Root may write anywhere.
    if identity == Identity::User {
        let allow = |mode| fs::set_permissions(&scratch, PermissionsExt::from_mode(mode)).expect("chmod");
        allow(0o555);
        let (code, _, err) = restart(&sandbox, &images, &[]);
        assert!(code == 122 && err.contains("scratch/file") && err.contains("ermission denied"), "{code}: {err}");
        assert!(other.exists());
        allow(0o755);
    }
    let (code, out, err) = restart(&sandbox, &images, &[]);
    assert_eq!((code, out.as_str()), (0, "one\n"), "{err}");
    assert!(err.contains("set aside in ") && err.contains(&format!("{}\n", other.display())), "{err}");
    assert!(scratch.join("file").is_file(), "{err}");
}

/// A pattern may name the directory that the images are in: they must not grow with each other.
fn images_are_not_saved_in_images(identity: Identity) {
    let job = Job::new(["bash", "-c", "head -c 300000 /dev/urandom > data; for i in {1..60}; do sleep 0.05; done; rm data"]);
    let job = job.option("--save-files").option("*").option("--keep").option("9").option("--keep-on-success").interval("0.2");
    let sandbox = job.sandbox(identity);
    let mut running = job.launch(&sandbox);
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    let sizes: Vec<u64> = sandbox.images(IMAGES).iter().map(|image| fs::metadata(image).expect("the image").len()).collect();
    assert!(sizes.len() > 3, "{}", running.stderr());
    // The first may have come before the data was there.
    assert!(sizes.iter().all(|&size| size < 1_200_000), "{sizes:?}");
    assert!(sizes[1] > 300_000, "the data is not in the image: {sizes:?}");
}

/// What cannot be saved is told by its name; the job runs on without a checkpoint.
fn an_unreadable_file_is_named(identity: Identity) {
    let job = Job::new(["bash", "-c", "for i in {1..30}; do sleep 0.05; done; echo untouched"]);
    let (what, pattern) = match identity {
        Identity::User | Identity::NamedUser => ("secret", "s*"),
        // Root reads everything but this.
        Identity::Root => ("/dev/null", "/dev/null"),
    };
    let job = job.option("--save-files").option(pattern);
    let sandbox = job.sandbox(identity);
    if identity == Identity::User {
        fs::write(sandbox.join("secret"), "")
            .and_then(|()| fs::set_permissions(sandbox.join("secret"), PermissionsExt::from_mode(0o0)))
            .expect("a file that nobody reads");
    }
    let mut running = job.launch(&sandbox);
    let code = running.wait(BOUND);
    let said = running.stderr();
    assert_eq!((code, sandbox.read_text("out").as_str()), (0, "untouched\n"), "{said}");
    let line = said.lines().find(|line| line.starts_with("ckpt: no checkpoint")).unwrap_or_else(|| panic!("no line:\n{said}"));
    assert!(line.contains(what) && line.contains("--save-files"), "{line}");
    assert_eq!(sandbox.images(IMAGES), [] as [PathBuf; 0]);
}

fn inspect_shows_them(identity: Identity) {
    let job = job().interval("0.6");
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    let mut command = sandbox.command(tool("ckpt-inspect"));
    command.args(&images[images.len() - 1..]);
    let (code, out, err) = sandbox.finish(command);
    assert_eq!(code, 0, "{err}");
    let scratch = sandbox.join("scratch");
    // The job may have it open just then, which is another line.
    for (name, what) in [("sub/counter", "0600"), ("sparse", "30.0 MiB"), ("link", "-> sub/counter")] {
        let path = scratch.join(name).display().to_string();
        assert!(out.lines().any(|line| line.contains(&path) && line.contains(what)), "no {name} with {what}:\n{out}");
    }
}
