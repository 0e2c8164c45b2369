//! What other users must not be able to do. A user who can write to the directory of a job's images runs nothing as the job's user, stops no
//! checkpoint, and changes nothing that a restart restores.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use ckpt_session::abstract_sockets;
use ckpt_tests::job::IMAGES;
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, Sandbox, as_either, tool};
use ckpt_wire::{SOCKET_PREFIX, Secret};

/// Somebody else: neither root, nor the ordinary user of the tests, nor the overflow uid.
const SOMEBODY: u32 = 54_322;

as_either! {
    another_users_image names_that_somebody_has_taken damaged_images_only an_image_among_those_of_somebody
    the_next_name_of_a_socket_cannot_be_told a_name_of_ckpt_ctl_that_somebody_has_taken
}

/// Runs a test where files can be given away.
fn as_root_only(test: impl FnOnce()) {
    Identity::Root.run(|_| test());
}

fn give_away(path: &Path) {
    chown(path, Some(SOMEBODY), Some(SOMEBODY)).expect("root may give files away");
}

/// A directory as `/tmp` is.
fn make_sticky(sandbox: &Sandbox) {
    fs::set_permissions(sandbox.join(IMAGES), fs::Permissions::from_mode(0o1777)).expect("chmod");
}

/// A job that prints a line every tenth of a second.
fn lines() -> Job {
    Job::script("bash", "for i in {1..25}; do echo $i; sleep 0.1; done").interval("0.2")
}

fn expected() -> String {
    (1..=25).map(|i| format!("{i}\n")).collect()
}

fn another_users_image(identity: Identity) {
    as_root_only(|| {
        let (job, marker) = (lines().option("--hook-restart").option("touch hook-has-run"), "hook-has-run");
        let sandbox = job.sandbox(identity);
        let images = job.killed(&sandbox);
        images.iter().for_each(|image| give_away(image));
        if identity == Identity::User {
            // It could not be read otherwise: only its owner may.
            images.iter().for_each(|image| fs::set_permissions(image, fs::Permissions::from_mode(0o644)).expect("chmod"));
            let mut running = job.restart(&sandbox, &images, 1);
            assert_eq!(running.wait(BOUND), 124, "{}", running.stderr());
            assert!(running.stderr().contains(&format!("belongs to user {SOMEBODY}")), "{}", running.stderr());
            assert!(!sandbox.join(marker).exists(), "the hook of somebody's image has run");
        } else {
            // Root becomes the owner, for whom this image of root's is none.
            let mut running = job.restart(&sandbox, &images, 1);
            assert_eq!(running.wait(BOUND), 122, "{}", running.stderr());
            assert!(!sandbox.join(marker).exists(), "somebody's hook has run as root");
        }
        let mut trusting = sandbox.command(tool("ckpt-restart"));
        trusting.arg("--trust-owner").args(&images);
        let mut running = sandbox.start(trusting, "out", true, "err.2");
        assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
        assert_eq!(sandbox.read_text("out"), expected());
        assert!(sandbox.join(marker).exists());
    });
}

/// Whoever takes the name of the coordinator's socket when the launcher is gone, accepts everybody or nobody, and never answers.
const SQUATTER: &str = r#"
import os, socket, sys, time
os.setgid(54322); os.setuid(54322)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for _ in range(600):
    try:
        listener.bind("\0" + sys.argv[1])
        break
    except OSError:
        time.sleep(0.05)
listener.listen(0)
if sys.argv[2] == "nobody":
    # The queue is full.
    own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.connect("\0" + sys.argv[1])
print("listens", flush=True)
held = []
while True:
    if sys.argv[2] == "nobody":
        time.sleep(1)
    else:
        held.append(listener.accept())
"#;

#[test]
fn a_false_coordinator_keeps_no_signal_from_the_job() {
    as_root_only(|| {
        for accepts in ["everybody", "nobody"] {
            let sandbox = Sandbox::new(Identity::Root);
            let mut command = sandbox.command(tool("ckpt-launch"));
            command.args(["bash", "-c", "echo $$ > pid; echo $CKPT_SECRET > secret; exec sleep 150"]);
            let mut running = sandbox.start(command, "out", false, "err");
            let read = |name: &str| {
                let text = fs::read_to_string(sandbox.join(name)).ok()?;
                text.ends_with('\n').then(|| text.trim().to_owned())
            };
            let secret = running.until("the job", BOUND, |_| read("secret"));
            let pid: i32 = read("pid").and_then(|pid| pid.parse().ok()).expect("the job's pid");
            let namespace = fs::read_link("/proc/self/ns/pid").expect("a link").to_string_lossy().into_owned();
            let number = namespace.trim_start_matches("pid:[").trim_end_matches(']').to_owned();
            let mut squatter = sandbox.command("python3");
            // Seen in /proc/net/unix while the launcher lived.
            let secret = Secret::parse(secret.as_bytes()).expect("the job's secret");
            let name = String::from_utf8(secret.socket(number.parse().expect("a number")).to_vec()).expect("text");
            assert!(abstract_sockets().expect("the sockets").contains(&name));
            squatter.args(["-c", SQUATTER, &name, accepts]);
            let mut squatter = sandbox.start(squatter, "squatter", false, "squatter.err");
            running.signal(nix::sys::signal::Signal::SIGKILL);
            squatter.until("the false coordinator", BOUND, |_| read("squatter"));
            let job = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(job, nix::sys::signal::Signal::SIGTERM).expect("the job lives");
            squatter.until("the end of the job", BOUND, |_| {
                let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                (state.is_empty() || state.contains(") Z ")).then_some(())
            });
            squatter.kill();
        }
    });
}

/// The names of the sockets of coordinators and their agents that are in use now.
fn agents_sockets() -> HashSet<String> {
    abstract_sockets().expect("the sockets").into_iter().filter(|name| name.starts_with(SOCKET_PREFIX)).collect()
}

/// Whoever has seen a job's sockets cannot tell the name of the next one from them.
fn the_next_name_of_a_socket_cannot_be_told(identity: Identity) {
    let job = lines();
    let sandbox = job.sandbox(identity);
    let before = agents_sockets();
    let mut running = job.launch(&sandbox);
    running.until_says("checkpoint 1:");
    let first: HashSet<String> = &agents_sockets() - &before;
    running.kill();
    let id =
        sandbox.images(IMAGES)[0].file_stem().expect("a name").to_string_lossy().split('_').nth(2).expect("the id").to_owned();
    let mut running = job.restart(&sandbox, &sandbox.images(IMAGES), 1);
    running.until_says("restarted from");
    let second: HashSet<String> = &(&agents_sockets() - &before) - &first;
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert!(!first.is_empty() && !second.is_empty(), "{first:?} {second:?}");
    assert!(first.union(&second).all(|name| !name.contains(&id)), "{id} is told by {first:?} or {second:?}");
}

/// Somebody has bound a name under which `ckpt-ctl` and `--resume` look for a running job's coordinator.
fn a_name_of_ckpt_ctl_that_somebody_has_taken(identity: Identity) {
    as_root_only(|| {
        let job = lines();
        for accepts in ["everybody", "nobody"] {
            let sandbox = job.sandbox(identity);
            let images = job.killed(&sandbox);
            let id = images[0].file_stem().expect("a name").to_string_lossy().split('_').nth(2).expect("the id").to_owned();
            let mut squatter = sandbox.own_command("python3");
            squatter.args(["-c", SQUATTER, &format!("ckpt-ctl/{id}/1"), accepts]);
            let mut squatter = sandbox.start(squatter, "squatter", false, "squatter.err");
            squatter.until("the false coordinator", BOUND, |_| (!sandbox.read("squatter").is_empty()).then_some(()));
            let (code, _, said) = sandbox.ctl(IMAGES, &["status"]);
            assert!(code != 0 && said.contains("no job"), "{code} {said}");
            let (code, said) = resume(&sandbox, "--resume=require", 1);
            assert_eq!(code, 0, "{said}");
            assert_eq!(sandbox.read_text("out"), expected());
            squatter.kill();
        }
    });
}

/// A user of whom no other test has anything in `/tmp`.
const VICTIM: u32 = 54_399;

/// A directory in `/tmp` of somebody's, with a file that a job would read; gone at the end.
struct Planted(PathBuf);

impl Planted {
    fn new(dir: PathBuf, name: &str) -> Self {
        fs::create_dir(&dir).expect("a new directory");
        let planted = Self(dir);
        fs::write(planted.0.join(name), "echo the file was read\n").expect("write");
        give_away(&planted.0.join(name));
        give_away(&planted.0);
        planted
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A tool as [`VICTIM`].
fn victims(sandbox: &Sandbox, name: &str) -> Command {
    let mut command = sandbox.own_command("setpriv");
    command.env_remove("CKPT_ENV_FILE");
    command.args([&format!("--reuid={VICTIM}"), &format!("--regid={VICTIM}"), "--clear-groups"]).arg(tool(name));
    command
}

#[test]
fn variables_that_somebody_offers_are_not_read() {
    as_root_only(|| {
        let sandbox = Sandbox::new(Identity::Root);
        let images = sandbox.make_dir(IMAGES);
        chown(&images, Some(VICTIM), Some(VICTIM)).expect("root may give files away");
        let common = PathBuf::from(format!("/tmp/ckpt-{VICTIM}"));
        let planted = Planted::new(common, "name");
        let script = r#"echo "$CKPT_ENV_FILE"; for i in {1..15}; do sleep 0.1; . "$CKPT_ENV_FILE"; done; echo end"#;
        let mut command = victims(&sandbox, "ckpt-launch");
        command.args(["-i", "0.2", "-d"]).arg(&images).args(["bash", "-c", script]);
        let mut running = sandbox.start(command, "out", false, "err.0");
        running.until_says("checkpoint 1:");
        running.kill();
        let file = PathBuf::from(sandbox.read_text("out").trim());
        let (dir, name) = (file.parent().expect("a directory"), file.file_name().expect("a name").to_str().expect("text"));
        assert!(!file.starts_with(&planted.0), "the job was given somebody's directory");
        assert_eq!(file.metadata().expect("the file").permissions().mode() & 0o777, 0o600);
        drop(planted);
        fs::remove_dir_all(dir).expect("what the killed job has left");
        let restart = |run: usize| {
            let mut command = victims(&sandbox, "ckpt-restart");
            command.args(sandbox.images(IMAGES));
            let mut running = sandbox.start(command, "out", true, &format!("err.{run}"));
            (running.wait(BOUND), running.stderr())
        };
        let planted = Planted::new(dir.to_owned(), name);
        let (code, said) = restart(1);
        assert!(code != 0 && said.contains(&format!("{} belongs to another user", dir.display())), "{code} {said}");
        drop(planted);
        let (code, said) = restart(2);
        assert_eq!(code, 0, "{said}");
        assert_eq!(sandbox.read_text("out"), format!("{}\nend\n", file.display()));
        assert!(!dir.exists(), "it stays when the job has ended");
    });
}

#[test]
fn root_restarts_a_users_image_as_that_user() {
    as_root_only(|| {
        let script = "for i in {1..15}; do sleep 0.1; done; echo \"$(id -u) $(id -g) $(grep CapEff /proc/self/status)\"";
        let job = Job::script("bash", script).option("--hook-restart").option("id -u > by-hook").interval("0.2");
        let sandbox = job.sandbox(Identity::User);
        let images = job.killed(&sandbox);
        let mut command = sandbox.own_command(tool("ckpt-restart"));
        command.args(&images);
        let mut running = sandbox.start(command, "out", true, "err.1");
        assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
        assert_eq!(sandbox.read_text("out"), "54321 54321 CapEff:\t0000000000000000\n");
        assert_eq!(sandbox.read_text("by-hook"), "54321\n");
    });
}

fn names_that_somebody_has_taken(identity: Identity) {
    as_root_only(|| {
        let job = lines();
        let sandbox = job.sandbox(identity);
        make_sticky(&sandbox);
        let mut running = job.launch(&sandbox);
        running.until_says("checkpoint 1:");
        let first = sandbox.images(IMAGES).pop().expect("an image");
        let name = first.file_name().and_then(|name| name.to_str()).expect("text");
        let stem = name.strip_suffix("000001.img").expect("the first generation").to_owned();
        let planted: Vec<String> =
            (10..14).map(|n| format!("{stem}{n:06}.img")).chain([format!("{stem}{}.img", u64::MAX)]).collect();
        let unfinished = (9..16).map(|n| format!(".{stem}{n:06}.img.tmp"));
        for name in planted.iter().cloned().chain(unfinished) {
            let path = sandbox.join(IMAGES).join(name);
            fs::write(&path, "planted").expect("write");
            give_away(&path);
        }
        running.until_says("checkpoint 15:");
        running.kill();
        assert!(!running.stderr().contains("no checkpoint"), "{}", running.stderr());
        // Those that somebody has planted count as no images.
        let mut running = job.restart(&sandbox, &sandbox.images(IMAGES), 1);
        assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
        assert_eq!(sandbox.read_text("out"), expected());
        let left = |name: &String| sandbox.join(IMAGES).join(name).exists();
        assert!(planted.iter().all(left), "somebody's files were removed");
    });
}

/// `ckpt-launch --resume` of a job in a sandbox.
fn resume(sandbox: &Sandbox, how: &str, run: usize) -> (i32, String) {
    let mut command = sandbox.command(tool("ckpt-launch"));
    command.arg(how).arg("-d").arg(sandbox.join(IMAGES)).args(["--", "bash", "./script"]);
    let mut running = sandbox.start(command, "out", true, &format!("err.{run}"));
    (running.wait(BOUND), running.stderr())
}

fn damaged_images_only(identity: Identity) {
    let job = lines();
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    let good: Vec<Vec<u8>> = images.iter().map(|image| fs::read(image).expect("read")).collect();
    for (image, good) in images.iter().zip(&good) {
        fs::write(image, &good[..good.len() - 1]).expect("write");
    }
    let before = sandbox.read("out");
    let (code, said) = resume(&sandbox, "--resume", 1);
    assert_eq!((code, sandbox.read("out") == before), (124, true), "{said}");
    assert!(said.contains("--resume=fresh"), "{said}");
    let (code, said) = resume(&sandbox, "--resume=require", 2);
    assert_eq!((code, sandbox.read("out") == before), (124, true), "{said}");
    let (code, said) = resume(&sandbox, "--resume=fresh", 3);
    assert_eq!(code, 0, "{said}");
    assert!(sandbox.read_text("out").ends_with(&expected()), "{said}");
}

fn an_image_among_those_of_somebody(identity: Identity) {
    as_root_only(|| {
        let job = lines();
        let sandbox = job.sandbox(identity);
        make_sticky(&sandbox);
        let images = job.killed(&sandbox);
        // Somebody's copy under the number of a later one: of the same job, and of another.
        for (image, name) in images.iter().zip(["ckpt_bash_aaaaaaaaaaaaaaaa_000900.img", "ckpt_bash_bbbbbbbbbbbbbbbb_000900.img"])
        {
            let copy = sandbox.join(IMAGES).join(name);
            fs::copy(image, &copy).expect("copy");
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).expect("chmod");
            give_away(&copy);
        }
        let mut running = job.restart(&sandbox, &sandbox.images(IMAGES), 1);
        assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
        assert!(running.stderr().contains("passed over"), "{}", running.stderr());
        assert_eq!(sandbox.read_text("out"), expected());
        // Now only somebody's are left: they are no reason not to start.
        let (code, said) = resume(&sandbox, "--resume", 2);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("belongs to user"), "{said}");
    });
}
