//! A process of a job cannot launch a job. A process that merely inherited such an environment can: batch systems pass the submitter's
//! environment to the submitted job.
#![allow(unsafe_code)]

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr;

use ckpt_objects::HostPid;
use ckpt_objects::process::status_if_there;
use ckpt_wire::touched::ENV_TOUCHED;
use ckpt_wire::{ENV_AGENT, ENV_FILE, ENV_IO_URING, ENV_JOB, ENV_SECRET, ENV_SHIELD, ENV_SIGNAL, Secret};

use ckpt_session::Listener;
use ckpt_session::library::AGENT_FILE;

/// The variable that loads the agent: ld.so(8).
const LD_PRELOAD: &str = "LD_PRELOAD";

/// This process is one of a job.
#[derive(Debug, thiserror::Error)]
#[error(
    "this is already part of job {0}, which is checkpointed as a whole; run the command without ckpt-launch, and restart jobs outside of it"
)]
pub struct Nested(String);

/// Begins this program anew without the agent and the variables of a job that it is not part of, if there are such. To be called before anything else.
///
/// # Errors
///
/// When it is part of that job.
pub fn leave_other_jobs() -> Result<(), Nested> {
    let Ok(job) = env::var(ENV_JOB) else { return Ok(()) };
    let launcher = env::var(ENV_SHIELD).ok().and_then(|shield| shield.split_once(':')?.0.parse().ok());
    let secret = env::var_os(ENV_SECRET).and_then(|secret| Secret::parse(secret.as_bytes()));
    let exists = |secret| HostPid::own().pid_namespace().is_ok_and(|namespace| Listener::exists(secret, namespace));
    let is_there = secret.is_some_and(exists);
    if is_there && launcher.is_some_and(|launcher| descends_from(HostPid(launcher))) {
        return Err(Nested(job));
    }
    begin_anew();
    Ok(())
}

/// Whether this process is a child of that one's, or a child of such a one.
fn descends_from(ancestor: HostPid) -> bool {
    let mut pid = HostPid::own();
    while pid != ancestor {
        match status_if_there(pid).map(|status| status.number("PPid")) {
            None | Some(0) => return false,
            Some(parent) => pid = HostPid(i32::try_from(parent).unwrap_or(0)),
        }
    }
    true
}

/// The entries of an `LD_PRELOAD` but agents'.
pub fn without_agents(preload: &OsStr) -> OsString {
    let entries = preload.as_bytes().split(|byte| matches!(byte, b':' | b' '));
    let others = entries
        .filter(|entry| !entry.is_empty() && Path::new(OsStr::from_bytes(entry)).file_name() != Some(OsStr::new(AGENT_FILE)));
    OsString::from_vec(others.collect::<Vec<_>>().join(&b':'))
}

/// Executes this program again in an environment without any job's. Returns where that fails.
fn begin_anew() {
    let variables = env::vars_os().filter_map(|(name, value)| {
        let is_jobs = [ENV_JOB, ENV_SECRET, ENV_IO_URING, ENV_SHIELD, ENV_SIGNAL, ENV_AGENT, ENV_FILE, ENV_TOUCHED]
            .iter()
            .any(|known| name == *known);
        let value = if name == LD_PRELOAD { without_agents(&value) } else { value };
        (!is_jobs).then(|| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())?
    });
    let (variables, arguments): (Vec<CString>, Vec<CString>) =
        (variables.collect(), env::args_os().filter_map(|argument| CString::new(argument.into_vec()).ok()).collect());
    let list = |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    // SAFETY: the path is a C string, both lists hold C strings and end with a null pointer, and all live over the call. A raw one: the agent, which
    // is here, would put its variables back.
    unsafe { libc::syscall(libc::SYS_execve, c"/proc/self/exe".as_ptr(), list(&arguments).as_ptr(), list(&variables).as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_taken_out_of_preloads() {
        for (preload, others) in [
            ("/opt/lib/libckpt_preload.so", ""),
            ("/opt/lib/libckpt_preload.so:/lib/a.so", "/lib/a.so"),
            ("/lib/a.so libb.so", "/lib/a.so:libb.so"),
        ] {
            assert_eq!(without_agents(OsStr::new(preload)), others, "{preload}");
        }
    }
}
