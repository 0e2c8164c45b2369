//! Commands that the coordinator runs for itself: hooks, and the batch system's. They are its children, but not the job's processes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use ckpt_objects::HostPid;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::signals::{Inherited, start_apart};
use crate::tree::Anchor;

/// The children of a coordinator that serve it.
pub struct Helpers {
    anchor: Arc<Anchor>,
    /// What they begin with.
    before: Inherited,
    /// Who waits for which. Whoever reaps all children hands over what it finds.
    waiting: Mutex<HashMap<i32, mpsc::Sender<ExitStatus>>>,
}

/// One that runs.
struct Helper {
    child: Child,
    ended: mpsc::Receiver<ExitStatus>,
}

impl Helpers {
    /// None yet.
    pub fn new(anchor: Arc<Anchor>, before: Inherited) -> Self {
        Self { anchor, before, waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<i32, mpsc::Sender<ExitStatus>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A child has ended, and been waited for.
    pub fn ended(&self, pid: i32, status: ExitStatus) {
        if let Some(waiter) = self.waiting().remove(&pid) {
            self.anchor.remove_helper(HostPid(pid));
            let _ = waiter.send(status);
        }
    }

    fn start(&self, mut command: Command) -> io::Result<Helper> {
        start_apart(&mut command, self.before);
        let (sender, ended) = mpsc::channel();
        // Whoever reaps it, or looks for the job's processes, must find it noted.
        let mut waiting = self.waiting();
        let child = self.anchor.add_helper(|| command.spawn())?;
        waiting.insert(child.id().cast_signed(), sender);
        Ok(Helper { child, ended })
    }

    /// Runs a command that reads nothing, and gives its standard output.
    pub fn ask(&self, mut command: Command, patience: Duration) -> Result<String, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut helper = self.start(command).map_err(|error| format!("cannot run {name}: {error}"))?;
        let (out, err) = (collect(helper.child.stdout.take()), collect(helper.child.stderr.take()));
        let status = helper.wait(patience).ok_or_else(|| format!("{name} gave no answer for {} s", patience.as_secs()))?;
        let text = |stream: mpsc::Receiver<String>| stream.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        if status.success() {
            return Ok(text(out));
        }
        let said = text(err);
        Err(match said.lines().find(|line| !line.trim().is_empty()) {
            Some(line) => format!("{name}: {}", line.trim().trim_start_matches(&format!("{name}: "))),
            None => format!("{name} failed ({status})"),
        })
    }

    /// Runs a command of the user's by the shell, its output to standard error.
    pub fn run(&self, line: &str, variables: &[(&str, &OsStr)], patience: Duration) -> Result<(), String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).stdin(Stdio::null()).envs(variables.iter().map(|(name, value)| (name, value)));
        let err = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3).map_err(|errno| errno.to_string())?;
        command.stdout(err);
        let helper = self.start(command).map_err(|error| error.to_string())?;
        match helper.wait(patience) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(status.to_string()),
            None => Err(format!("it was ended after {} s", patience.as_secs())),
        }
    }
}

impl Helper {
    /// Waits for its end. It is ended when it takes longer.
    fn wait(self, patience: Duration) -> Option<ExitStatus> {
        match self.ended.recv_timeout(patience) {
            Ok(status) => Some(status),
            Err(_) => {
                // It leads a group of its own.
                if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                None
            }
        }
    }
}

/// Reads a stream to its end, beside.
fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    // Without a thread, nothing of it is told.
    let _ = std::thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}
