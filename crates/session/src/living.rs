//! Whether a job lives already: a restart beside it would take its files from under it.

use std::fs;
use std::time::{Duration, Instant};

use ckpt_objects::HostPid;
use ckpt_wire::ENV_JOB;

/// How long processes that have been killed may take to end.
const ENDING: Duration = Duration::from_secs(3);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);

/// A process of the job with this id that goes on living; nothing where there is none, or none that this user may look at.
#[must_use]
pub fn process_of(id: &str) -> Option<HostPid> {
    let begun = Instant::now();
    loop {
        let found = find(id)?;
        if begun.elapsed() > ENDING {
            return Some(found);
        }
        std::thread::sleep(LOOK);
    }
}

/// Every process of a job has its id in its environment, whatever else that was made of. Those that have ended have none any more.
fn find(id: &str) -> Option<HostPid> {
    let variable = format!("{ENV_JOB}={id}");
    let own = std::process::id();
    let numbers = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut numbers = numbers.filter(|pid| u32::try_from(*pid) != Ok(own));
    let is_jobs = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == variable.as_bytes())
    };
    numbers.find(is_jobs).map(HostPid)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_tells_by_its_environment_whose_it_is() {
        let id = format!("{:016x}", std::process::id());
        assert_eq!(process_of(&id), None);
        let mut child = Command::new("sleep").arg("60").env(ENV_JOB, &id).spawn().unwrap();
        assert_eq!(process_of(&id), Some(HostPid(child.id().cast_signed())));
        child.kill().unwrap();
        // One that has ended, and is not waited for yet.
        assert_eq!(process_of(&id), None);
        child.wait().unwrap();
    }
}
