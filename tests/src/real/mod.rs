//! Real programs, as they are packaged: what each is, what it needs, how it is run, and what it must have left when it was killed
//! and brought back.
//!
//! `real/GROUP.toml` describes the programs of a group, one `[[program]]` each; `real/GROUP/` holds their scripts. Nothing else
//! knows of a program: `cargo xtask programs` installs what is named there, and `docs/programs.md` is written from it and from
//! the [`results`].

pub mod results;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::artifacts::shared_dir;
use crate::{Identity, Job, Output, Sandbox, not_run};
use results::Run;

/// How often each program is killed and brought back.
pub const KILLS: usize = 3;

/// The part of a plain run's time within which each kill comes: with three of them, the job cannot end before.
const SPAN: f64 = 0.2;

/// How often the time of a plain run is taken anew, where the job then ended before it was killed.
const MEASUREMENTS: u32 = 3;

/// How many checkpoints a job has the time for, were it not killed.
const CHECKPOINTS: f64 = 20.0;

/// How often a job is given more work because it has ended too soon.
const MORE_WORK: usize = 3;

/// How long a plain run may take.
const PLAIN_BOUND: Duration = Duration::from_secs(150);

/// The lines of the table of programs, in its order: the name of a group's files, and its title.
pub const GROUPS: [(&str, &str); 7] = [
    ("python", "Python"),
    ("languages", "Other languages"),
    ("parallel", "Parallel programs"),
    ("scientific", "Scientific codes"),
    ("tools", "Tools"),
    ("servers", "Servers inside the job"),
    ("terminals", "Terminals"),
];

/// How long a program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Some 20 to 60 s: for the table.
    Full,
    /// 5 to 10 s: for the sample that every run of the tests holds.
    Short,
}

impl Length {
    /// A job that ends sooner cannot be killed three times.
    fn least(self) -> Duration {
        Duration::from_secs(if self == Self::Full { 20 } else { 3 })
    }
}

/// A real program, and a job of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The group, which is the name of the file that describes it.
    #[serde(skip)]
    pub group: String,
    /// Its name in tests and in the table.
    pub name: String,
    /// What the job does, for the table.
    pub does: String,
    /// Debian packages that it needs.
    #[serde(default)]
    pub apt: Vec<String>,
    /// Python packages that it needs: then the first `python3` of its search path is that of their virtual environment.
    #[serde(default)]
    pub pip: Vec<String>,
    /// Packages of Node.js that it needs.
    #[serde(default)]
    pub npm: Vec<String>,
    /// A shell's line whose first line of output tells the version.
    pub version: String,
    /// The job: words, of which `{}` stands for the amount of work. Files of the group's folder that a line names are put into
    /// the working directory.
    pub command: String,
    /// Further files of the group's folder that it needs.
    #[serde(default)]
    pub files: Vec<String>,
    /// Its environment beyond a search path, `LC_ALL=C.UTF-8`, and `HOME` and `TMPDIR`, which are its working directory.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A shell's line that makes what the job needs, before it.
    pub prepare: Option<String>,
    /// A shell's line that fails when what the job left is wrong. Without one, standard output is compared to that of an
    /// uninterrupted run.
    pub check: Option<String>,
    /// Files that the job leaves, compared to those of an uninterrupted run.
    #[serde(default)]
    pub leaves: Vec<String>,
    /// Options of `ckpt-launch`.
    #[serde(default)]
    pub options: Vec<String>,
    /// Whether it makes objects of System V IPC, which outlive a kill: then each run has an IPC namespace of its own.
    #[serde(default)]
    pub own_ipc: bool,
    /// The amount of work of a job of 20 to 60 s.
    pub full: u64,
    /// The amount of work of a job of 5 to 10 s. Only programs that have it are in the sample.
    pub short: Option<u64>,
    /// Whether it is run as root as well.
    #[serde(default)]
    pub root: bool,
    /// Whether it wants a user that has a name.
    #[serde(default)]
    pub named: bool,
    /// Whether it keeps more than one core busy: then no other is run beside it at full length, since its times are told.
    #[serde(default)]
    pub alone: bool,
    /// Why it is known to fail.
    pub fails: Option<String>,
}

/// The file of one group.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default)]
    program: Vec<Program>,
}

/// The folder of the descriptions.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("real")
}

/// All programs, group by group.
///
/// # Panics
/// When a description is wrong, with what is.
#[must_use]
pub fn programs() -> Vec<Program> {
    let of_group = |group: &str| {
        let path = folder().join(group).with_extension("toml");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut programs = toml::from_str::<Group>(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())).program;
        programs.iter_mut().for_each(|program| group.clone_into(&mut program.group));
        programs
    };
    GROUPS.iter().flat_map(|(group, _)| of_group(group)).collect()
}

impl Program {
    /// The amount of work for a length, if it is run with that.
    #[must_use]
    pub fn work(&self, length: Length) -> Option<u64> {
        if length == Length::Full { Some(self.full) } else { self.short }
    }

    /// Who it is run as.
    #[must_use]
    pub fn identities(&self, length: Length) -> Vec<Identity> {
        let as_root = self.root && length == Length::Full && Identity::own() == Identity::Root;
        let user = if self.named { Identity::NamedUser } else { Identity::User };
        if as_root { vec![user, Identity::Root] } else { vec![user] }
    }

    /// Its environment.
    fn env(&self) -> BTreeMap<String, String> {
        let mut path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".to_owned();
        let mut env = self.env.clone();
        if !self.pip.is_empty() {
            path = format!("{}:{path}", shared_dir().join("venv/bin").display());
        }
        if !self.npm.is_empty() {
            env.insert("NODE_PATH".to_owned(), shared_dir().join("node/node_modules").display().to_string());
        }
        env.insert("PATH".to_owned(), path);
        env
    }

    /// The first line that its version says, when it is installed.
    ///
    /// # Errors
    /// What was said instead.
    pub fn installed_version(&self, identity: Identity) -> Result<String, String> {
        let sandbox = Sandbox::new(identity);
        let mut command = sandbox.command("sh");
        command.args(["-c", &self.version]).envs(self.env());
        let (code, out, err) = sandbox.finish(command);
        match out.lines().chain(err.lines()).map(str::trim).find(|line| !line.is_empty()) {
            Some(line) if code == 0 => Ok(line.to_owned()),
            said => Err(format!("is not installed: `{}` ended with {code}: {}", self.version, said.unwrap_or_default())),
        }
    }

    /// The job, with an amount of work.
    ///
    /// # Panics
    /// When a file of it cannot be read.
    #[must_use]
    pub fn job(&self, work: u64) -> Job {
        let fill = |line: &str| line.replace("{}", &work.to_string());
        let mut job = Job::new(fill(&self.command).split_whitespace()).bound(PLAIN_BOUND);
        let lines = [Some(&self.command), self.prepare.as_ref(), self.check.as_ref()];
        let named = lines.into_iter().flatten().flat_map(|line| line.split(|c: char| c.is_whitespace() || "'\";()".contains(c)));
        let mut files: Vec<&str> = named.chain(self.files.iter().map(String::as_str)).collect();
        files.sort_unstable();
        files.dedup();
        // Names of files, not paths: nothing outside the sandbox is ever written.
        let names =
            files.into_iter().map(|name| name.trim_start_matches("./")).filter(|name| !name.is_empty() && !name.contains('/'));
        for name in names {
            let path = folder().join(&self.group).join(name);
            if path.is_file() {
                let contents = fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
                job = job.file(name, contents);
            }
        }
        job = self.env().iter().fold(job, |job, (name, value)| job.env(name, value));
        job = self.leaves.iter().fold(job, |job, name| job.leaves(name));
        job = self.options.iter().fold(job, |job, option| job.option(option));
        job = if self.own_ipc { job.own_ipc() } else { job };
        job = self.prepare.iter().fold(job, |job, line| job.prepared_by(&fill(line)));
        self.check.iter().fold(job, |job, line| job.checked_by(&fill(line)))
    }

    /// Runs the program plainly, with more work than its description says where this machine is so fast that it would end too
    /// soon to be killed.
    fn run_plain(&self, identity: Identity, length: Length) -> (Job, Output) {
        let mut work = self.work(length).expect("it is run with this length");
        for _ in 0..MORE_WORK {
            let job = self.job(work);
            let plain = job.run_plain(identity);
            let missing = length.least().as_secs_f64() / plain.took.as_secs_f64().max(0.01);
            if missing <= 1.0 || plain.code != 0 || !self.uses_work() {
                return (job, plain);
            }
            work = (work as f64 * (missing * 1.2).clamp(1.3, 4.0)).ceil() as u64;
        }
        let job = self.job(work);
        let plain = job.run_plain(identity);
        (job, plain)
    }

    /// Whether the amount of work makes a difference.
    fn uses_work(&self) -> bool {
        self.command.contains("{}") || self.prepare.as_ref().is_some_and(|line| line.contains("{}"))
    }

    /// Runs the program plainly, then kills and restarts it, and returns what is to be told of that, and of what went wrong.
    #[must_use]
    pub fn run(&self, identity: Identity, length: Length) -> Run {
        let mut run = Run::new(&self.name, identity, &self.options);
        match self.installed_version(identity) {
            Ok(version) => run.version = version,
            Err(complaint) => {
                run.failure = Some(complaint);
                return run;
            }
        }
        let tried = catch_unwind(AssertUnwindSafe(|| {
            // How long a program takes depends on what else runs: threads that spin may take ten times as long in one run as in the next.
            for measurement in 1.. {
                let (job, plain) = self.run_plain(identity, length);
                let took = plain.took;
                run.seconds = took.as_secs_f64();
                let interval = (took.as_secs_f64() / CHECKPOINTS).clamp(0.2, 2.0);
                let job = job.interval(&format!("{interval:.2}")).bound(took * 4 + PLAIN_BOUND);
                let (interrupted, lasted) = match job.if_it_lasts(took.mul_f64(SPAN), identity, KILLS) {
                    Ok(output) => (output, true),
                    Err(short) => (*short, false),
                };
                job.compare(&plain, &interrupted);
                if lasted {
                    run.observe(&interrupted);
                    break;
                }
                assert!(measurement < MEASUREMENTS, "proves too little: the job ended too soon\n{}", interrupted.told());
            }
        }));
        run.failure = tried.err().map(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            text.unwrap_or("a panic without words").to_owned()
        });
        run
    }
}

/// Runs one program of the sample as a test. Root installs the sample with `cargo xtask test`: what is missing then is a failure.
/// Others cannot, and are told.
///
/// # Errors
/// What went wrong.
pub fn sample(program: &Program, identity: Identity) -> Result<(), String> {
    match program.installed_version(identity) {
        Ok(_) => program.run(identity, Length::Short).failure.map_or(Ok(()), Err),
        Err(complaint) if Identity::own() == Identity::Root => Err(format!("{} {complaint}", program.name)),
        Err(complaint) => {
            not_run(&format!("{} {complaint}", program.name));
            Ok(())
        }
    }
}
