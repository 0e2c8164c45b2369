//! What the tests run: the built tools, and the programs of `programs/`, compiled when first asked for.
//!
//! Both are kept in `/tmp/ckpt-tests-UID`, readable by everybody: the folder of the build need not be reachable for the
//! ordinary user that tests run jobs as. Names carry a hash of what they were made from, so nothing stale is ever run.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// The tools, and the agent that `ckpt-launch` looks for beside itself.
const TOOLS: [&str; 5] = ["ckpt-launch", "ckpt-restart", "ckpt-ctl", "ckpt-inspect", "libckpt_preload.so"];

/// How old a copy of the tools must be before a later run of the tests removes it.
const STALE: Duration = Duration::from_secs(3600);

/// The folder of the running test's build: `target/PROFILE`.
#[must_use]
pub fn build_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the running test has a path");
    test.parent().and_then(Path::parent).expect("a test lies in target/PROFILE/deps").to_owned()
}

/// The path of a built tool, in a folder that every user can read.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(copy_tools).join(name)
}

/// The path of `programs/NAME.c`, compiled.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    compile(name, &["-O2", "-pthread", "-Wl,--as-needed", "-lm"])
}

/// The path of `programs/NAME.c`, compiled and linked with other options than most.
///
/// # Panics
/// When the compiler fails, with what it said.
#[must_use]
pub fn compile(name: &str, options: &[&str]) -> PathBuf {
    try_compile(name, options).unwrap_or_else(|error| panic!("{error}"))
}

/// As [`compile`], for options that a machine may lack the means for.
///
/// # Errors
/// What the compiler said.
pub fn try_compile(name: &str, options: &[&str]) -> Result<PathBuf, String> {
    let programs = programs();
    let source = programs.join(name).with_extension("c");
    let headers = fs::read_dir(&programs).expect("the folder of the programs").map(|entry| entry.expect("an entry").path());
    let mut sources: Vec<PathBuf> = headers.filter(|path| path.extension().is_some_and(|extension| extension == "h")).collect();
    sources.sort();
    sources.push(source.clone());
    build(name, &sources, options, |to| {
        let mut command = Command::new("cc");
        command.args(["-std=gnu11", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-g", "-o"]).arg(to).arg(&source).args(options);
        command
    })
}

/// The path of `programs/go/NAME.go`, built with cgo, which makes it a dynamic program, and without any network.
///
/// # Panics
/// When the compiler fails, with what it said.
#[must_use]
pub fn go_program(name: &str) -> PathBuf {
    let source = programs().join("go").join(name).with_extension("go");
    let built = build(name, std::slice::from_ref(&source), &["go"], |to| {
        let mut command = Command::new("go");
        command.args(["build", "-o"]).arg(to).arg(&source);
        let settings = [("CGO_ENABLED", "1"), ("GO111MODULE", "off"), ("GOPROXY", "off"), ("GOFLAGS", "")];
        command.envs(settings).env("GOCACHE", shared_dir().join("go"));
        command
    });
    built.unwrap_or_else(|error| panic!("{error}"))
}

/// The folder of the programs.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}

/// What a command makes of some sources, with options that matter: made once, and again when they have changed.
fn build(name: &str, sources: &[PathBuf], options: &[&str], command: impl FnOnce(&Path) -> Command) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    for file in sources {
        fs::read(file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display())).hash(&mut hasher);
    }
    options.hash(&mut hasher);
    let place = shared_dir().join(format!("{name}-{:016x}", hasher.finish()));
    if place.exists() {
        return Ok(place);
    }
    // Under a name of our own first: another test may build the same program now.
    let scratch = place.with_extension(format!("{}-{:x}", std::process::id(), fastrand::u64(..)));
    let mut command = command(&scratch);
    let compiler = command.get_program().to_owned();
    let output = command
        .output()
        .map_err(|error| format!("cannot run {}: {error}; install the packages of tests/packages.txt", compiler.display()))?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o755)).expect("chmod of a fresh file");
    // Another test may have been faster, and a job of its may run that program by now: it stays.
    match fs::hard_link(&scratch, &place) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => panic!("cannot make {}: {error}", place.display()),
        _ => fs::remove_file(&scratch).expect("a file of ours"),
    }
    Ok(place)
}

/// The folder of everything that is shared between tests. `cargo xtask` puts Python's and Node's packages there.
pub(crate) fn shared_dir() -> PathBuf {
    let dir = PathBuf::from(format!("/tmp/ckpt-tests-{}", nix::unistd::geteuid()));
    fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("cannot make {}: {error}", dir.display()));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    dir
}

/// Copies the tools to where everybody can read them, unless that has been done.
fn copy_tools() -> PathBuf {
    let from = std::env::var_os("CKPT_BIN").map_or_else(build_dir, PathBuf::from);
    let mut hasher = DefaultHasher::new();
    from.hash(&mut hasher);
    for name in TOOLS {
        let path = from.join(name);
        let metadata = fs::metadata(&path)
            .unwrap_or_else(|error| panic!("cannot find {}: {error}; run `cargo build --workspace` first", path.display()));
        (metadata.len(), metadata.modified().ok()).hash(&mut hasher);
    }
    let shared = shared_dir();
    let place = shared.join(format!("bin-{:016x}", hasher.finish()));
    if place.exists() {
        return place;
    }
    remove_stale(&shared);
    let scratch = tempfile::Builder::new().prefix("bin.").tempdir_in(&shared).expect("a folder in ours");
    for name in TOOLS {
        let copy = scratch.path().join(name);
        fs::copy(from.join(name), &copy).unwrap_or_else(|error| panic!("cannot copy {name}: {error}"));
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("chmod of a fresh file");
    }
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("chmod of a fresh folder");
    // Another test may have been faster: its copy is as good.
    if fs::rename(scratch.path(), &place).is_ok() {
        let _ = scratch.keep();
    }
    place
}

/// Removes copies of tools that no running test can be using any more.
fn remove_stale(shared: &Path) {
    for entry in fs::read_dir(shared).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|time| SystemTime::now().duration_since(time));
        if entry.file_name().as_encoded_bytes().starts_with(b"bin") && matches!(age, Ok(Ok(age)) if age > STALE) {
            // Whatever is left is removed by the next run.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
