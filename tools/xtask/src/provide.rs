//! Installs the requirements of the tests beside cargo: distribution packages, Python packages, rustup components.
//!
//! Only root installs distribution packages. If something is missing and cannot be installed, a line says so, with the command
//! to type; the tests that need it report it themselves.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use xtask::processes::{run, run_well};
use xtask::say;
use xtask::tools::{cargo, root, target_dir};

/// How long one installer may take.
const INSTALL_LIMIT: Duration = Duration::from_secs(10 * 60);
/// How long a question to an installer may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(30);

/// Installs `cargo fmt` and `cargo clippy` if they are missing: rustup's minimal profile lacks them.
pub fn style_checkers() -> Result<()> {
    for component in ["fmt", "clippy"] {
        if succeeds(cargo().args([component, "--version"])) {
            continue;
        }
        let name = if component == "fmt" { "rustfmt" } else { component };
        run_well(Command::new("rustup").args(["component", "add", name]), INSTALL_LIMIT)
            .with_context(|| format!("cargo {component} is missing: install {name}"))?;
    }
    Ok(())
}

/// Whether `cargo nextest` is installed.
#[must_use]
pub fn has_nextest() -> bool {
    succeeds(cargo().args(["nextest", "--version"]))
}

/// Installs the Debian packages of `tests/packages.txt` that are missing.
pub fn packages() -> Result<()> {
    install(listed("tests/packages.txt")?)
}

/// Installs those of these Debian packages that are missing.
fn install(packages: Vec<String>) -> Result<()> {
    let missing: Vec<String> = packages.into_iter().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !rustix::process::geteuid().is_root() {
        say!("not root, so these packages stay missing (apt-get install {names}); the tests that need them will say so");
        return Ok(());
    }
    say!("installing {names} …");
    let mut install = apt_get(&["install", "--yes", "--no-install-recommends"]);
    install.args(&missing);
    run_well(&mut apt_get(&["update"]), INSTALL_LIMIT)
        .and_then(|()| run_well(&mut install, INSTALL_LIMIT))
        .with_context(|| format!("failed to install what the tests need: install {names}"))
}

/// The requirements of a real program, from its description in `tests/real/GROUP.toml`. The tests read the rest.
#[derive(Default, Deserialize)]
struct Needs {
    name: String,
    #[serde(default)]
    apt: Vec<String>,
    #[serde(default)]
    pip: Vec<String>,
    #[serde(default)]
    npm: Vec<String>,
    short: Option<u64>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    program: Vec<Needs>,
}

/// Installs the requirements of the real programs that `wanted` selects, given `GROUP::NAME` and whether the program is in the sample
/// of every test run. Packages that are not Debian's go to a folder that every user can read and that the tests know.
pub fn programs(wanted: impl Fn(&str, bool) -> bool) -> Result<()> {
    let mut needs = Needs::default();
    for entry in fs::read_dir(root().join("tests/real")).context("failed to read tests/real")?.flatten() {
        let path = entry.path();
        let Some(group) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".toml")) else { continue };
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let described: Group = toml::from_str(&text).with_context(|| format!("{} is wrong", path.display()))?;
        for program in described.program.into_iter().filter(|it| wanted(&format!("{group}::{}", it.name), it.short.is_some())) {
            needs.apt.extend(program.apt);
            needs.pip.extend(program.pip);
            needs.npm.extend(program.npm);
        }
    }
    for list in [&mut needs.apt, &mut needs.pip, &mut needs.npm] {
        list.sort();
        list.dedup();
    }
    // Some archives ship Node.js with npm; Debian has a separate package.
    if !needs.npm.is_empty() && !succeeds(Command::new("npm").arg("--version")) {
        needs.apt.extend(["nodejs", "npm"].map(str::to_owned));
    }
    if !needs.pip.is_empty() {
        needs.apt.push("python3-venv".to_owned());
    }
    install(needs.apt)?;
    let shared = PathBuf::from(format!("/tmp/ckpt-tests-{}", rustix::process::geteuid().as_raw()));
    let venv = shared.join("venv");
    once(&venv, needs.pip, |missing| {
        if !venv.join("bin/pip").exists() {
            // The system's Python: another user may not reach the first one on the search path.
            run_well(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&venv), INSTALL_LIMIT)?;
        }
        let mut install = Command::new(venv.join("bin/pip"));
        install.args(["install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]).args(missing);
        run_well(&mut install, INSTALL_LIMIT)
    })?;
    let node = shared.join("node");
    once(&node, needs.npm, |missing| {
        let mut install = Command::new("npm");
        install.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&node).args(missing);
        run_well(&mut install, INSTALL_LIMIT)
    })
}

/// Installs the packages that the list in a folder does not name, and adds them to the list. If that fails, a line says so, and the
/// programs that need them report it.
fn once(folder: &Path, packages: Vec<String>, install: impl FnOnce(&[String]) -> Result<()>) -> Result<()> {
    let list = folder.join("installed.txt");
    let installed = fs::read_to_string(&list).unwrap_or_default();
    let missing: Vec<String> = packages.into_iter().filter(|package| !installed.lines().any(|line| line == package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    say!("installing {} into {} …", missing.join(" "), folder.display());
    fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    if let Err(e) = install(&missing) {
        say!("{e:#}: the programs that need {} will say that they are not installed", missing.join(" "));
        return Ok(());
    }
    fs::write(&list, installed + &missing.join("\n") + "\n").with_context(|| format!("failed to write {}", list.display()))
}

/// Installs `tests/requirements.txt`, where it exists, into a virtual environment below the build folder. Returns the
/// search path to run the tests with: that environment's programs first.
pub fn python() -> Result<Option<OsString>> {
    let list = root().join("tests/requirements.txt");
    let Ok(wanted) = fs::read_to_string(&list) else { return Ok(None) };
    let venv = target_dir()?.join("test-venv");
    let mark = venv.join("installed.txt");
    if fs::read_to_string(&mark).ok().as_ref() != Some(&wanted) {
        say!("installing Python packages into {} …", venv.display());
        run_well(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv), INSTALL_LIMIT)?;
        let mut install = Command::new(venv.join("bin/pip"));
        install.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&list);
        run_well(&mut install, INSTALL_LIMIT)?;
        fs::write(&mark, wanted).with_context(|| format!("failed to write {}", mark.display()))?;
    }
    let old = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(venv.join("bin")).chain(env::split_paths(&old)));
    path.map(Some).with_context(|| format!("{} cannot be on a search path", venv.display()))
}

/// The entries of a list, one a line; `#` begins a comment. A list that does not exist is empty.
fn listed(path: &str) -> Result<Vec<String>> {
    let text = match fs::read_to_string(root().join(path)) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("failed to read {path}")),
    };
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(lines.filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn is_installed(package: &str) -> bool {
    let mut command = Command::new("dpkg-query");
    command.args(["--show", "--showformat", "${db:Status-Status}", package]).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["--quiet=2", "-o", "DPkg::Lock::Timeout=120"]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn succeeds(command: &mut Command) -> bool {
    run(command.stdout(Stdio::null()).stderr(Stdio::null()), QUESTION_LIMIT).is_ok_and(|status| status.success())
}
