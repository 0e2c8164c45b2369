//! A real Slurm on this machine, for one test: munged, slurmctld and slurmd in namespaces of their own, with a network of one
//! address, their files in a folder of their own, and gone with the test.
//!
//! Timers are as short as Slurm takes them. Its controller looks at time limits, and at the signals that come before them,
//! every 30 s; nothing shortens that.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::artifacts::tool;
use crate::identity::ORDINARY;
use crate::sandbox::BOUND;
use crate::{Identity, Running, Sandbox, not_run};

/// Seconds between SIGTERM and SIGKILL at a job's end: `KillWait` of slurm.conf(5).
pub const KILL_WAIT: u64 = 3;

/// How Slurm knows which processes belong to a step: `ProctrackType` of slurm.conf(5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracking {
    /// Those that descend from it.
    #[default]
    Linuxproc,
    /// Those in its control group.
    Cgroup,
}

/// What may differ between two clusters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Configuration {
    /// How processes are tracked.
    pub tracking: Tracking,
    /// The exit code that requeues a job, if there is one: `RequeueExit` of slurm.conf(5).
    pub requeue_exit: Option<u8>,
}

/// A cluster of one node. It has eight processors, whatever the machine has, and the partitions `low` (the default) and `high`, whose
/// jobs have those of `low` requeued when they need their processors.
pub struct Cluster {
    running: Running,
    /// Pid 1 of its namespace.
    init: i32,
    home: Sandbox,
    control_group: Option<ControlGroup>,
}

/// What is started in the namespaces, as their pid 1: it sets the machine up, starts the daemons and reaps.
///
/// `getaddrinfo` finds no address for a listening socket on a machine that has but 127.0.0.1, and `mpirun` wants an interface that is not the loopback's.
const INIT: &str = r#"
set -e
ip link set lo up
network=lo
if ip link add net0 type veth peer name net1; then
    ip link set net1 up
    ip link set net0 up
    network=net0
fi
ip address add 10.31.0.1/24 dev "$network"
hostname ckptnode
for file in passwd group hosts; do
    cat "/etc/$file" "$file.more" >"$file"
    mount --bind "$file" "/etc/$file"
done
[ ! -d cgroup ] || mount -t cgroup -o freezer none cgroup/freezer
head -c 1024 /dev/urandom >munge.key
chmod 600 munge.key
munged --force --num-threads=2 --key-file="$PWD/munge.key" --socket="$PWD/munge.sock" --pid-file="$PWD/munge.pid" \
    --log-file="$PWD/munge.log" --seed-file="$PWD/munge.seed"
slurmctld -D -c &
slurmd -D -c &
wait
"#;

/// What slurm.conf(5) and the machine say of a cluster whose files lie in `home`.
fn slurm_conf(home: &Path, configuration: Configuration) -> String {
    let home = home.display();
    let mut conf = format!(
        "ClusterName=ckpt\n\
         SlurmctldHost=ckptnode(10.31.0.1)\n\
         SlurmUser=root\n\
         AuthType=auth/munge\n\
         AuthInfo=socket={home}/munge.sock,cred_expire=5\n\
         SlurmctldPidFile={home}/slurmctld.pid\n\
         SlurmdPidFile={home}/slurmd.pid\n\
         StateSaveLocation={home}/state\n\
         SlurmdSpoolDir={home}/spool\n\
         ProctrackType=proctrack/{}\n\
         TaskPlugin=task/none\n\
         MpiDefault=none\n\
         JobAcctGatherType=jobacct_gather/none\n\
         ReturnToService=2\n\
         SelectType=select/cons_tres\n\
         SelectTypeParameters=CR_CPU\n\
         SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0\n\
         PreemptType=preempt/partition_prio\n\
         PreemptMode=REQUEUE\n\
         KillWait={KILL_WAIT}\n\
         SlurmdParameters=config_overrides\n\
         NodeName=ckptnode NodeAddr=10.31.0.1 CPUs=8 State=UNKNOWN\n\
         PartitionName=low Nodes=ckptnode Default=YES PriorityTier=1\n\
         PartitionName=high Nodes=ckptnode PriorityTier=10\n",
        match configuration.tracking {
            Tracking::Linuxproc => "linuxproc",
            Tracking::Cgroup => "cgroup",
        }
    );
    if let Some(code) = configuration.requeue_exit {
        let _ = writeln!(conf, "RequeueExit={code}");
    }
    conf
}

impl Cluster {
    /// Starts one, or says why it cannot be had here.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with(Configuration::default())
    }

    /// Starts one that is configured otherwise, or says why it cannot be had here.
    ///
    /// # Panics
    /// When Slurm does not come up, with what it said.
    #[must_use]
    pub fn start_with(configuration: Configuration) -> Option<Self> {
        if Identity::own() != Identity::Root {
            not_run("starting a Slurm needs root");
            return None;
        }
        if ["munged", "slurmctld", "slurmd"].iter().any(|daemon| !Path::new("/usr/sbin").join(daemon).exists()) {
            not_run("there is no Slurm here: slurmctld, slurmd, slurm-client and munge");
            return None;
        }
        let home = Sandbox::new(Identity::Root);
        home.make_dir("state");
        home.make_dir("spool");
        home.write("passwd.more", format!("tester:x:{ORDINARY}:{ORDINARY}::/tmp:/bin/bash\n"));
        home.write("group.more", format!("tester:x:{ORDINARY}:\n"));
        home.write("hosts.more", "10.31.0.1 ckptnode\n");
        home.write("slurm.conf", slurm_conf(home.path(), configuration));
        let mut command = home.command("unshare");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SLURM_CONF", home.join("slurm.conf"));
        command.args(["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        let control_group = match configuration.tracking {
            Tracking::Linuxproc => None,
            Tracking::Cgroup => {
                home.write(
                    "cgroup.conf",
                    format!("CgroupPlugin=cgroup/v1\nCgroupMountpoint={}\n", home.join("cgroup").display()),
                );
                home.make_dir("cgroup/freezer");
                command.arg("--cgroup");
                Some(ControlGroup::new(&home)?)
            }
        };
        command.args(["bash", "-c", INIT]);
        if let Some(group) = &control_group {
            command = group.started_in(&home, &command);
        }
        let mut running = home.start(command, "out", false, "log");
        let unshare = running.pid();
        let init = running.until("pid 1 of the cluster", BOUND, |_| crate::tree::child(unshare));
        let mut cluster = Self { running, init, home, control_group };
        cluster.await_node();
        Some(cluster)
    }

    /// Waits until the node takes jobs.
    fn await_node(&mut self) {
        let end = Instant::now() + BOUND;
        loop {
            let mut command = self.command(&self.home, "sinfo");
            command.args(["--noheader", "--format=%T"]);
            if self.home.finish(command).1.starts_with("idle") {
                return;
            }
            assert!(self.running.ended().is_none() && Instant::now() < end, "Slurm does not come up:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The last that the daemons have said.
    #[must_use]
    pub fn log(&self) -> String {
        let log = self.home.read_text("log");
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// A command that runs on the cluster's machine, in the sandbox and as its identity, with the tools in its path.
    #[must_use]
    pub fn command(&self, sandbox: &Sandbox, program: impl AsRef<OsStr>) -> Command {
        let tools = tool("ckpt-launch");
        let tools = tools.parent().expect("the tools are in a folder").display();
        // It takes root to enter; the identity is taken on inside.
        let mut command = sandbox.own_command("nsenter");
        command.arg(format!("--target={}", self.init)).args(["--net", "--mount", "--uts", "--ipc", "--pid"]);
        command.arg(format!("--wdns={}", sandbox.path().display()));
        if sandbox.identity == Identity::User {
            command.args([format!("--setuid={ORDINARY}"), format!("--setgid={ORDINARY}")]);
        }
        command.env("PATH", format!("{tools}:/usr/local/bin:/usr/bin:/bin"));
        command.env("SLURM_CONF", self.home.join("slurm.conf")).arg("--").arg(program);
        command
    }

    /// Runs a command as [`Cluster::command`] to its end, and returns its exit code, standard output and standard error.
    #[must_use]
    pub fn run<S: AsRef<OsStr>>(
        &self,
        sandbox: &Sandbox,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> (i32, String, String) {
        let mut command = self.command(sandbox, program);
        command.args(args);
        sandbox.finish(command)
    }

    /// Submits a job with `sbatch`, these arguments and this environment, `NAME=VALUE`. (With `--export=NAME=VALUE` Slurm 22.05 would start a
    /// login shell for the rest of the environment, and wait for it.)
    ///
    /// # Panics
    /// When Slurm does not take it.
    #[must_use]
    pub fn submit<'a>(&'a self, sandbox: &'a Sandbox, environment: &[&str], args: &[&str]) -> Batch<'a> {
        let mut command = self.command(sandbox, "sbatch");
        command.arg("--parsable").args(args).envs(environment.iter().filter_map(|variable| variable.split_once('=')));
        let (code, out, err) = sandbox.finish(command);
        assert_eq!(code, 0, "sbatch {args:?}: {err}");
        Batch { cluster: self, sandbox, id: out.trim().to_owned(), hastened: Cell::default() }
    }
}

/// A job, as `scontrol show job` tells of it: `JobState`, `Reason`, `Restarts`, `ExitCode`, …
pub type Record = HashMap<String, String>;

/// A job that has been submitted.
pub struct Batch<'a> {
    cluster: &'a Cluster,
    sandbox: &'a Sandbox,
    /// Its number, or for a task of an array `JOB_TASK`.
    pub id: String,
    /// As how manieth restart it was let go on at once.
    hastened: Cell<u32>,
}

impl Batch<'_> {
    /// The same for a task of this array.
    #[must_use]
    pub fn task(&self, number: u32) -> Self {
        Self { id: format!("{}_{number}", self.id), hastened: Cell::default(), ..*self }
    }

    /// Runs `scancel` on it with these options.
    ///
    /// # Panics
    /// When that fails.
    pub fn scancel(&self, options: &[&str]) {
        let (code, _, err) = self.cluster.run(self.sandbox, "scancel", options.iter().chain(&[self.id.as_str()]));
        assert_eq!(code, 0, "scancel {options:?}: {err}\n{}", self.told());
    }

    /// Has root change it: `scontrol update`.
    ///
    /// # Panics
    /// When that fails.
    pub fn update(&self, change: &str) {
        let update = ["update", &format!("JobId={}", self.id), change];
        let (code, _, err) = self.cluster.run(&self.cluster.home, "scontrol", update);
        assert_eq!(code, 0, "scontrol update {change}: {err}\n{}", self.told());
    }

    /// What Slurm knows of it.
    #[must_use]
    pub fn record(&self) -> Record {
        let (_, out, _) = self.cluster.run(self.sandbox, "scontrol", ["--oneliner", "show", "job", &self.id]);
        let field = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        out.split_whitespace().filter_map(field).collect()
    }

    /// Waits until it is in a state (`RUNNING`, `COMPLETED`, `FAILED`, `TIMEOUT`, …), and returns what is known of it then.
    ///
    /// # Panics
    /// When it is not after [`BOUND`], or has ended in another one.
    pub fn until_state(&self, state: &str) -> Record {
        self.until(&format!("state {state}"), |record| {
            let now = record.get("JobState").map_or("none", String::as_str);
            let over = !matches!(now, "PENDING" | "RUNNING" | "COMPLETING" | "REQUEUED" | "CONFIGURING" | "none");
            assert!(now == state || !over, "the job ended as {now}, not as {state}: {record:?}\n{}", self.told());
            now == state
        })
    }

    /// Waits until what is known of it is as wanted.
    ///
    /// A job that was requeued has to wait until its credential has expired, 5 s at least; root lets it go on earlier. A credential of the same
    /// second would be taken for the old one.
    ///
    /// # Panics
    /// When it is not after [`BOUND`].
    pub fn until(&self, what: &str, mut look: impl FnMut(&Record) -> bool) -> Record {
        let end = Instant::now() + BOUND;
        loop {
            let record = self.record();
            if look(&record) {
                return record;
            }
            let restarts = record.get("Restarts").and_then(|number| number.parse().ok()).unwrap_or(0);
            if record.get("Reason").is_some_and(|reason| reason == "BeginTime") && restarts > self.hastened.replace(restarts) {
                self.update("StartTime=now+2");
            }
            assert!(Instant::now() < end, "waited in vain for {what}: {record:?}\n{}", self.told());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a file of the sandbox holds some text so many times.
    ///
    /// # Panics
    /// When it does not after [`BOUND`], or the job has ended without.
    pub fn until_says(&self, file: &str, text: &str, times: usize) {
        self.until(&format!("{text:?} in {file}"), |record| {
            let state = record.get("JobState").map_or("none", String::as_str);
            let said = self.sandbox.read_text(file).matches(text).count() >= times;
            let over = matches!(state, "COMPLETED" | "FAILED" | "TIMEOUT" | "CANCELLED" | "PREEMPTED");
            assert!(said || !over, "the job ended as {state} without {text:?} in {file}\n{}", self.told());
            said
        });
    }

    /// Everything a person needs to see of a job that went wrong: the files that it wrote in the sandbox, and the end of the logs.
    #[must_use]
    pub fn told(&self) -> String {
        let mut told = String::new();
        for entry in std::fs::read_dir(self.sandbox.path()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("out") || name.starts_with("err") {
                let _ = writeln!(told, "{name}:\n{}", crate::job::without_repetition(&self.sandbox.read_text(&name)));
            }
        }
        told + &self.cluster.log()
    }
}

/// A control group of the cluster's own, in the version 1 hierarchy of the freezer. It goes with the cluster.
struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Makes one, or says why there is none to be had.
    fn new(home: &Sandbox) -> Option<Self> {
        let freezer = Path::new("/sys/fs/cgroup/freezer");
        let name = home.path().file_name().expect("a sandbox has a name");
        let path = freezer.join(name);
        match std::fs::create_dir(&path) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                not_run(&format!("no control group can be made in {}: {error}", freezer.display()));
                None
            }
        }
    }

    /// The command, started in the group: its cgroup namespace then has the group as its root.
    fn started_in(&self, home: &Sandbox, command: &Command) -> Command {
        let mut shell = home.command("bash");
        shell.args(["-c", "echo $$ >\"$0\"/cgroup.procs && exec \"$@\""]).arg(&self.0);
        shell.arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Groups below it first.
        let _ = Command::new("find").arg(&self.0).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]).status();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The namespace's pid 1 takes all of it along.
        self.running.kill();
        drop(self.control_group.take());
    }
}
