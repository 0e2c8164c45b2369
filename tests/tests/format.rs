//! Images of earlier builds: each restarts with this build, or is refused with the versions of both.

use std::fs;
use std::path::{Path, PathBuf};

use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Sandbox, not_run, tool};

/// The exit code of a restart that this machine does not allow.
const REFUSED: i32 = 122;

/// The images that are kept as test data.
fn kept() -> Vec<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let entries = fs::read_dir(data).expect("the test data").map(|entry| entry.expect("an entry").path());
    let images: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|extension| extension == "img")).collect();
    assert!(!images.is_empty(), "no image is kept");
    images
}

/// Whether this build reads the format of an image; a refusal must name both versions.
fn is_read(sandbox: &Sandbox, image: &Path) -> bool {
    let mut command = sandbox.command(tool("ckpt-inspect"));
    command.arg("--verify").arg(image);
    let (code, out, err) = sandbox.finish(command);
    let refused = err.contains("is of an older release (format ") && err.contains("; this one reads format ");
    assert!(code == 0 && out.contains(": ok") || code != 0 && refused, "{}: {code} {out} {err}", image.display());
    code == 0
}

#[test]
fn images_of_earlier_builds_are_read_or_refused_by_name() {
    let sandbox = Sandbox::new(Identity::own());
    let read = kept().iter().filter(|image| is_read(&sandbox, image)).count();
    assert_eq!(read, 1, "one image of the present format is kept: see tests/data/README.md");
}

#[test]
fn images_of_earlier_builds_restart() {
    if !nix::unistd::geteuid().is_root() {
        return not_run("needs root, whose image is kept");
    }
    let sandbox = Sandbox::new(Identity::own());
    for image in kept().iter().filter(|image| is_read(&sandbox, image)) {
        let copy = sandbox.join(image.file_name().expect("a name"));
        fs::copy(image, &copy).expect("a copy");
        let mut command = sandbox.command(tool("ckpt-restart"));
        command.arg("-d").arg(sandbox.path()).arg(&copy);
        let mut running = sandbox.start(command, "out", false, "err");
        let (code, said) = (running.wait(BOUND), running.stderr());
        if code == REFUSED && said.contains("processor") {
            not_run("the processor of the machine where the image was taken");
            continue;
        }
        assert!(code == 0 && said.contains("ckpt: restarted from checkpoint"), "{code} {said}");
    }
}
