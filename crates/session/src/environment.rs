//! Variables of the batch job around the launcher: they differ from run to run, while the job has those that it was started with. It is offered
//! the present ones in a file that a shell can read (`CKPT_ENV_FILE`).

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ckpt_objects::{FilePath, HostPid, start};
use ckpt_wire::STARTED;

use crate::job::{JobInfo, Variable};
use crate::{living, private};

/// What the names of the files end in; the job's id comes before it.
const EXTENSION: &str = "env";
/// A file of this age may be of a job that is about to begin.
const NEW: Duration = Duration::from_secs(60);
/// `PROC_PID_INIT_INO` of include/linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// How the names begin of what schedulers set: Slurm, HTCondor, PBS, LSF, Grid Engine, Flux.
const PREFIXES: [&str; 8] = ["SLURM_", "SLURMD_", "_CONDOR_", "PBS_", "LSB_", "LSF_", "SGE_", "FLUX_"];

/// What else is of one run and one machine: its name, temporary directories, devices that were granted, credentials that expire.
const NAMES: [&str; 13] = [
    "HOSTNAME",
    "TMPDIR",
    "TMP",
    "TEMP",
    "XDG_RUNTIME_DIR",
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
    "KRB5CCNAME",
    "X509_USER_PROXY",
    "BEARER_TOKEN_FILE",
    "BATCH_SYSTEM",
];

fn is_of_batch_job(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    // Others cannot be set by a shell.
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_plain && (NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// The present variables, by name, after the `former` ones: what there was and is no more has no value.
#[must_use]
pub fn variables(former: &[Variable]) -> Vec<Variable> {
    of(former, std::env::vars_os())
}

fn of(former: &[Variable], present: impl Iterator<Item = (OsString, OsString)>) -> Vec<Variable> {
    let text = |text: OsString| FilePath(text.as_bytes().to_vec());
    let mut all: Vec<Variable> = present
        .filter(|(name, _)| is_of_batch_job(name))
        .map(|(name, value)| Variable { name: text(name), value: Some(text(value)) })
        .collect();
    let gone = former.iter().filter(|old| all.iter().all(|new| new.name != old.name));
    let gone: Vec<Variable> = gone.map(|old| Variable { name: old.name.clone(), value: None }).collect();
    all.extend(gone);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The path of the file as the job is to know it: what the user has set, or one that is the same on every machine. Where another user has taken
/// the directory for it, another one, which nobody can have taken, since its name has the job's id.
#[must_use]
pub fn file_for(id: &str, set: Option<OsString>) -> PathBuf {
    if let Some(path) = set.filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    let common = private::directory();
    let dir = if private::make(&common).is_ok() { common } else { own_directory(id) };
    dir.join(format!("{id}.{EXTENSION}"))
}

fn own_directory(id: &str) -> PathBuf {
    let mut name = private::directory().into_os_string();
    name.push(format!("-{id}"));
    name.into()
}

/// Where that file is: a relative path begins in the directory that the job was launched in, wherever that is now.
#[must_use]
pub fn place(info: &JobInfo) -> PathBuf {
    info.launch_dir.as_path().join(info.env_file.as_path())
}

/// Sees to it that the job `id` does not read a file that another user has put at the path of [`place`]. Changes nothing, but makes the
/// directory where that is one of [`file_for`]'s.
///
/// # Errors
///
/// When the file, or that directory, is another user's.
pub fn check(path: &Path, id: &str) -> io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| is_private(dir, id)) {
        private::make(dir)?;
    }
    match path.symlink_metadata() {
        Ok(meta) if !private::is_own(&meta) => {
            Err(io::Error::other(format!("{} belongs to another user; have it removed", path.display())))
        }
        _ => Ok(()),
    }
}

/// Whether a directory is one of [`file_for`]'s.
fn is_private(dir: &Path, id: &str) -> bool {
    dir == private::directory() || dir == own_directory(id)
}

/// Writes the file, which only its owner may read, in the place of an earlier one. Gives a line for the user where that fails: nothing
/// depends on it but what the job makes of it.
#[must_use]
pub fn offer(info: &JobInfo) -> Option<String> {
    let path = place(info);
    remove_unfinished(&path, &info.id);
    sweep(&path);
    // Another job that ends may have removed the directory since.
    let written = check(&path, &info.id).and_then(|()| write(&path, &info.id, &info.environment));
    written.err().map(|error| {
        format!("cannot write the batch job's variables to {}: {error}; set CKPT_ENV_FILE for another place", path.display())
    })
}

fn write(path: &Path, id: &str, variables: &[Variable]) -> io::Result<()> {
    replace(path, id, &script(variables))
}

fn replace(path: &Path, id: &str, text: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(&unfinished(id)).tempfile_in(dir)?;
    file.write_all(text)?;
    file.persist(path)?;
    Ok(())
}

/// Writes down when the processes of a restart are to have started, for those that look at each other; or removes what an earlier run has left.
/// Gives a line for the user where that fails.
#[must_use]
pub fn tell_starts(info: &JobInfo) -> Option<String> {
    let path = starts_place(info);
    if info.restarted.is_empty() {
        let _ = std::fs::remove_file(path);
        return None;
    }
    let written = replace(&path, &info.id, start::table(&info.restarted).as_bytes());
    let what = "the job's processes see their own start times as those of the restart";
    written.err().map(|error| format!("cannot write {}: {error}; {what}", path.display()))
}

/// Where that is written.
fn starts_place(info: &JobInfo) -> PathBuf {
    place(info).with_extension(STARTED.trim_start_matches('.'))
}

/// Takes the files away: the job is over.
pub fn withdraw(info: &JobInfo) {
    if !info.env_file.0.is_empty() {
        let path = place(info);
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(starts_place(info));
        remove_unfinished(&path, &info.id);
        // Only those that have become empty go.
        for dir in path.parent().into_iter().filter(|dir| is_private(dir, &info.id)) {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Removes the files of jobs that were killed with their launchers, which nobody else does.
fn sweep(path: &Path) {
    let common = private::directory();
    // Seen from another pid namespace, jobs that live look as if they did not.
    let sees_all = HostPid::own().pid_namespace().is_ok_and(|namespace| namespace == INITIAL_PID_NAMESPACE);
    if !sees_all || path.parent() != Some(&common) {
        return;
    }
    let age = |name: &PathBuf| name.symlink_metadata().ok()?.modified().ok()?.elapsed().ok();
    let is_other = |name: &PathBuf| name.file_stem() != path.file_stem() && age(name).is_some_and(|age| age > NEW);
    let names: Vec<PathBuf> =
        common.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_other).collect();
    if names.is_empty() {
        return;
    }
    let Some(living) = living::jobs() else { return };
    for name in names {
        let is_ours = |extension: &&OsStr| [EXTENSION, STARTED.trim_start_matches('.')].iter().any(|own| extension == own);
        let id = name.extension().filter(is_ours).and_then(|_| name.file_stem());
        if id.is_some_and(|id| !living.contains(id.as_bytes())) {
            let _ = std::fs::remove_file(name);
        }
    }
}

/// How the names begin of files that are not yet complete.
fn unfinished(id: &str) -> String {
    format!(".ckpt-env-{id}-")
}

/// Removes what a launcher or restart of this job has left that was killed while it wrote the file.
fn remove_unfinished(path: &Path, id: &str) {
    let beginning = unfinished(id);
    let is_it = |entry: &std::fs::DirEntry| entry.file_name().as_bytes().starts_with(beginning.as_bytes());
    for entry in path.parent().and_then(|dir| dir.read_dir().ok()).into_iter().flatten().flatten().filter(is_it) {
        let _ = std::fs::remove_file(entry.path());
    }
}

/// What a shell reads with `.`.
fn script(variables: &[Variable]) -> Vec<u8> {
    let mut text = b"# The batch job that this job runs in now. Written by ckpt when it starts, and at each restart.\n".to_vec();
    for Variable { name, value } in variables {
        match value {
            Some(value) => {
                text.extend_from_slice(b"export ");
                text.extend_from_slice(&name.0);
                text.push(b'=');
                // A variable has no zero byte, the only one that cannot be quoted.
                text.extend_from_slice(&shlex::bytes::try_quote(&value.0).unwrap_or_default());
                text.push(b'\n');
            }
            None => {
                text.extend_from_slice(b"unset ");
                text.extend_from_slice(&name.0);
                text.push(b'\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    fn set(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn what_is_gone_is_remembered_over_all_restarts() {
        let first =
            of(&[], set(&[("SLURM_JOB_ID", "17"), ("SLURM_ARRAY_TASK_ID", "3"), ("HOME", "/home/u"), ("SLURM_x%%", "()")]));
        let names: Vec<String> = first.iter().map(|variable| variable.name.to_string()).collect();
        assert_eq!(names, ["SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"]);
        let second = of(&first, set(&[("SLURM_JOB_ID", "18"), ("TMPDIR", "/tmp/18")]));
        let third = of(&second, set(&[("_CONDOR_SLOT", "1")]));
        let text = String::from_utf8(script(&third)).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines, ["unset SLURM_ARRAY_TASK_ID", "unset SLURM_JOB_ID", "unset TMPDIR", "export _CONDOR_SLOT=1"]);
    }

    #[test]
    fn a_shell_reads_every_value_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        let value = "it's a $HOME `of` \\ \"words\"\nand lines ";
        std::fs::write(&path, "an earlier one").unwrap();
        write(&path, "id", &of(&[], set(&[("SLURM_JOB_NAME", value), ("TMPDIR", "")]))).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let mut command = Command::new("sh");
        command.args(["-c", ". \"$0\"; printf %s \"$SLURM_JOB_NAME\""]).arg(&path);
        assert_eq!(String::from_utf8(command.output().unwrap().stdout).unwrap(), value);
        assert!(write(&dir.path().join("no/where"), "id", &[]).is_err());
    }
}
