//! The disk of the images fails at any step: the job ends as it would have, what is complete stays, one line says what happened, and nothing is left over.
//! strace(1) has the launcher's calls fail; the job makes none of these itself.

use std::fs;

use ckpt_tests::sandbox::{BOUND, Sandbox};
use ckpt_tests::{Identity, Running, tool};

/// A call of each checkpoint that fails, by its number among those of its name, and what the launcher says of it.
struct Fault(&'static str, u32, &'static str, &'static str);

/// An image takes five writes, a sync, a rename, and a sync of its directory.
const FAULTS: [Fault; 13] = [
    Fault("pwrite64", 1, "ENOSPC", "No space left on device"),
    Fault("pwrite64", 2, "ENOSPC", "No space left on device"),
    Fault("pwrite64", 3, "EDQUOT", "quota exceeded"),
    Fault("pwrite64", 4, "EIO", "Input/output error"),
    Fault("pwrite64", 5, "ESTALE", "Stale"),
    Fault("fsync", 1, "EIO", "Input/output error"),
    Fault("fsync", 1, "ENOSPC", "No space left on device"),
    Fault("fsync", 2, "EIO", "may not survive a crash of the machine"),
    Fault("renameat2", 1, "EIO", "Input/output error"),
    Fault("renameat2", 1, "EDQUOT", "quota exceeded"),
    Fault("ftruncate", 1, "ENOSPC", "No space left on device"),
    Fault("memfd_create", 1, "EMFILE", "Too many open files"),
    Fault("unlink", 1, "EIO", "Input/output error"),
];

fn launch(sandbox: &Sandbox) -> Running {
    sandbox.make_dir("images");
    let mut command = sandbox.command(tool("ckpt-launch"));
    command.args(["-d", "images", "-i", "0.1", "--keep", "2", "--keep-on-success"]);
    command.args(["bash", "-c", "for i in {1..20}; do echo $i; sleep 0.1; done"]);
    sandbox.start(command, "out", false, "err")
}

/// Has the calls of each checkpoint that the launcher begins from now on fail. It has had no thread but the first when this is called, or one more.
fn break_disk(sandbox: &Sandbox, launcher: &Running, Fault(call, number, error, _): &Fault) -> Running {
    let mut command = sandbox.own_command("strace");
    command.args(["-f", "-q", "-o", "trace", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:error={error}:when={number}"), "-p", &launcher.pid().to_string()]);
    sandbox.start(command, "strace.out", false, "strace.err")
}

#[test]
fn a_disk_that_fails_harms_neither_the_job_nor_older_images() {
    for fault @ Fault(call, number, error, text) in &FAULTS {
        let sandbox = Sandbox::new(Identity::own());
        let mut running = launch(&sandbox);
        running.until("the first image", BOUND, |_| (!sandbox.images("images").is_empty()).then_some(()));
        let mut strace = break_disk(&sandbox, &running, fault);
        let code = running.wait(BOUND);
        let what = format!("{call} {number} {error}: {}", running.stderr());
        strace.wait(BOUND);
        let injected = fs::read_to_string(sandbox.join("trace")).is_ok_and(|trace| trace.contains("(INJECTED)"));
        assert!(injected, "the fault did not happen: {what}");
        assert_eq!((code, sandbox.read_text("out")), (0, (1..=20).map(|i| format!("{i}\n")).collect()), "{what}");
        assert!(running.stderr().contains(text) && !running.stderr().contains("panicked"), "{what}");
        let images = sandbox.images("images");
        // What cannot be removed stays.
        let most = if *call == "unlink" { usize::MAX } else { 2 };
        assert!((1..=most).contains(&images.len()), "{images:?}: {what}");
        for image in &images {
            let mut inspect = sandbox.command(tool("ckpt-inspect"));
            inspect.arg("--verify").arg(image);
            let (code, out, err) = sandbox.finish(inspect);
            assert!(code == 0 && out.contains(": ok"), "{out}{err}: {what}");
        }
        let names =
            fs::read_dir(sandbox.join("images")).expect("the directory").map(|entry| entry.expect("an entry").file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".img.tmp")).collect();
        assert!(*call == "unlink" || left.is_empty(), "{left:?} are left over: {what}");
    }
}
