//! The batch system around a launcher. With Slurm it talks by environment variables (sbatch(1), "output environment variables") and
//! `scontrol`. HTCondor needs only an exit code.

use std::fmt;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::helpers::Helpers;

/// Time limit of `scontrol`, which waits while the controller restarts.
const PATIENCE: Duration = Duration::from_secs(60);

/// The Slurm job that this process runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slurm {
    /// The job's id for `scontrol`: `123`, or `120_3` for a task of an array.
    pub job: String,
    /// How often Slurm has restarted it.
    pub restarts: u32,
    /// The number of tasks of this process's step, if there are several.
    pub tasks: Option<u32>,
}

impl fmt::Display for Slurm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slurm job {}", self.job)?;
        match self.restarts {
            0 => Ok(()),
            restarts => write!(f, ", restart {restarts}"),
        }
    }
}

/// The value of a variable, unless it is empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Distinguishes this job from others of the same user and command in one directory: by its name (the user's, else Slurm's), its task of
/// an array, and its rank in a step of several tasks.
#[must_use]
pub fn key(name: Option<&str>) -> String {
    key_of(name, variable)
}

fn key_of(name: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> String {
    let mut key = name.map(ToOwned::to_owned).or_else(|| variable("SLURM_JOB_NAME")).unwrap_or_default();
    if let Some(task) = variable("SLURM_ARRAY_TASK_ID") {
        key += &format!(" task {task}");
    }
    if let Some(rank) = variable("SLURM_PROCID").filter(|rank| rank != "0") {
        key += &format!(" rank {rank}");
    }
    key
}

impl Slurm {
    /// The job around this process.
    #[must_use]
    pub fn here() -> Option<Self> {
        Self::by(variable)
    }

    fn by(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let own = variable("SLURM_JOB_ID").or_else(|| variable("SLURM_JOBID"))?;
        // `scontrol` takes the array's own number for all pending tasks of the array.
        let task = variable("SLURM_ARRAY_JOB_ID").zip(variable("SLURM_ARRAY_TASK_ID"));
        let job = task.map_or(own, |(array, task)| format!("{array}_{task}"));
        let number = |name| variable(name).and_then(|count| count.parse::<u32>().ok());
        let restarts = number("SLURM_RESTART_COUNT").unwrap_or(0);
        Some(Self { job, restarts, tasks: number("SLURM_STEP_NUM_TASKS").filter(|tasks| *tasks > 1) })
    }

    /// The end of its time from the environment: `SLURM_JOB_END_TIME` of newer versions.
    #[must_use]
    pub fn end_by_environment() -> Option<SystemTime> {
        epoch(&variable("SLURM_JOB_END_TIME")?)
    }

    /// The end of its time from the controller.
    ///
    /// # Errors
    /// The batch system does not answer, or knows no end; the text says which.
    pub fn ask_end(&self, helpers: &Helpers) -> Result<SystemTime, String> {
        let mut command = Command::new("scontrol");
        command.args(["--oneliner", "show", "job", &self.job]).env("SLURM_TIME_FORMAT", "%s");
        let answer = helpers.ask(command, PATIENCE)?;
        end_in(&answer).ok_or_else(|| "scontrol show job names no EndTime".to_owned())
    }

    /// Requeues it. Slurm ends its processes soon after.
    ///
    /// # Errors
    /// The batch system refuses; the text says why.
    pub fn requeue(&self, helpers: &Helpers) -> Result<(), String> {
        let mut command = Command::new("scontrol");
        command.args(["requeue", &self.job]);
        helpers.ask(command, PATIENCE).map(drop)
    }
}

fn epoch(text: &str) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(text.parse().ok()?))
}

/// The end in the output of `scontrol show job`.
fn end_in(answer: &str) -> Option<SystemTime> {
    answer.split_whitespace().find_map(|field| epoch(field.strip_prefix("EndTime=")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(set: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn a_job_is_named_as_scontrol_takes_it() {
        assert_eq!(Slurm::by(variables(&[])), None);
        let plain = Slurm::by(variables(&[("SLURM_JOB_ID", "17")])).unwrap();
        assert_eq!((plain.job.as_str(), plain.to_string().as_str()), ("17", "Slurm job 17"));
        let task = Slurm::by(variables(&[
            ("SLURM_JOB_ID", "19"),
            ("SLURM_ARRAY_JOB_ID", "18"),
            ("SLURM_ARRAY_TASK_ID", "3"),
            ("SLURM_RESTART_COUNT", "2"),
        ]));
        assert_eq!(task.unwrap().to_string(), "Slurm job 18_3, restart 2");
    }

    #[test]
    fn keys_tell_jobs_tasks_and_ranks_apart() {
        assert_eq!(key_of(None, variables(&[])), "");
        let slurm = variables(&[("SLURM_JOB_NAME", "fold"), ("SLURM_ARRAY_TASK_ID", "7"), ("SLURM_PROCID", "1")]);
        assert_eq!(key_of(None, &slurm), "fold task 7 rank 1");
        assert_eq!(key_of(Some("mine"), &slurm), "mine task 7 rank 1");
        assert_eq!(key_of(None, variables(&[("SLURM_JOB_NAME", "fold"), ("SLURM_PROCID", "0")])), "fold");
    }

    #[test]
    fn the_end_is_found_in_what_scontrol_says() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(
            end_in("JobId=2 JobName=x RunTime=00:00:02 StartTime=1700000000 EndTime=1700000300 Deadline=N/A"),
            at(1_700_000_300)
        );
        assert_eq!(end_in("JobId=2 StartTime=1700000000 EndTime=Unknown"), None);
    }
}
