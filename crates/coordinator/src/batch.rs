//! The batch system that a job runs in, as far as its launcher talks to it: Slurm, by its environment (sbatch(1), "output environment variables") and
//! `scontrol`. HTCondor is told all by an exit code.

use std::fmt;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::helpers::Helpers;

/// How long `scontrol` may take: it waits for a controller that is being restarted.
const PATIENCE: Duration = Duration::from_secs(60);

/// The Slurm job that this process runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slurm {
    /// As `scontrol` takes it: `123`, or `120_3` for a task of an array.
    pub job: String,
    /// How often it has been started again.
    pub restarts: u32,
    /// How many tasks the step has that this process is one of, where it is one of several.
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

/// What tells this job from others of the same user and command that share a directory: its name (what the user said, else Slurm's), the task of an array
/// and, where several tasks of a step were started, the rank.
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
        // To `scontrol` the task that has the array's own number would be all that are still to come.
        let task = variable("SLURM_ARRAY_JOB_ID").zip(variable("SLURM_ARRAY_TASK_ID"));
        let job = task.map_or(own, |(array, task)| format!("{array}_{task}"));
        let number = |name| variable(name).and_then(|count| count.parse::<u32>().ok());
        let restarts = number("SLURM_RESTART_COUNT").unwrap_or(0);
        Some(Self { job, restarts, tasks: number("SLURM_STEP_NUM_TASKS").filter(|tasks| *tasks > 1) })
    }

    /// When its time is over, as its environment says: `SLURM_JOB_END_TIME` of newer versions.
    #[must_use]
    pub fn end_by_environment() -> Option<SystemTime> {
        epoch(&variable("SLURM_JOB_END_TIME")?)
    }

    /// When its time is over, as the controller says.
    pub fn ask_end(&self, helpers: &Helpers) -> Result<SystemTime, String> {
        let mut command = Command::new("scontrol");
        command.args(["--oneliner", "show", "job", &self.job]).env("SLURM_TIME_FORMAT", "%s");
        let answer = helpers.ask(command, PATIENCE)?;
        end_in(&answer).ok_or_else(|| "scontrol show job names no EndTime".to_owned())
    }

    /// Has it queued again. What runs of it is ended soon after.
    pub fn requeue(&self, helpers: &Helpers) -> Result<(), String> {
        let mut command = Command::new("scontrol");
        command.args(["requeue", &self.job]);
        helpers.ask(command, PATIENCE).map(drop)
    }
}

fn epoch(text: &str) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(text.parse().ok()?))
}

/// The end that `scontrol show job` tells.
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
