//! Builds the tools and the agent, and finds them.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::processes::run_well;

/// The programs of a user, each in its own package.
const PROGRAMS: [&str; 4] = ["ckpt-launch", "ckpt-restart", "ckpt-ctl", "ckpt-inspect"];
/// The agent's package, and the library it makes.
const AGENT: (&str, &str) = ("ckpt-preload", "libckpt_preload.so");
/// How long a build may take: a full one on a slow machine.
const BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The build profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// For the tests and the demo.
    Dev,
    /// For users and benches.
    Release,
}

/// The tools, built.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The folder that holds the programs and the agent's library.
    pub dir: PathBuf,
}

impl Tools {
    /// Builds the programs and the agent.
    pub fn build(profile: Profile) -> Result<Self> {
        let mut command = cargo();
        command.arg("build");
        for package in PROGRAMS.into_iter().chain([AGENT.0]) {
            command.args(["-p", package]);
        }
        if profile == Profile::Release {
            command.arg("--release");
        }
        run_well(&mut command, BUILD_LIMIT)?;
        let dir = target_dir()?.join(if profile == Profile::Release { "release" } else { "debug" });
        for file in PROGRAMS.into_iter().chain([AGENT.1]) {
            if !dir.join(file).is_file() {
                bail!("the build has succeeded, but {} is missing", dir.join(file).display());
            }
        }
        Ok(Self { dir })
    }

    /// The path of one of the programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Puts the tools first on `command`'s search path, so that it runs as a user would type it.
    pub fn on_path_of(&self, command: &mut Command) -> Result<()> {
        let old = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(std::iter::once(self.dir.clone()).chain(env::split_paths(&old)))
            .with_context(|| format!("{} cannot be on a search path", self.dir.display()))?;
        command.env("PATH", path);
        Ok(())
    }
}

/// The repository: the workspace of the package that cargo runs now. The program may have been built in another checkout.
#[must_use]
pub fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    package.ancestors().find(|dir| dir.join("Cargo.lock").exists()).unwrap_or(&package).to_path_buf()
}

/// Cargo, in the repository: the one that runs this program, if any.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The build folder of cargo: the one with this program, recognized by cargo's mark.
pub fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe().context("failed to find this program's own file")?;
    let marked = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    marked.map(Into::into).with_context(|| format!("{} is not in a build folder of cargo's", program.display()))
}
