//! Jobs made up for the tests of this crate.

use ckpt_objects::clocks::Clocks;
use ckpt_objects::credentials::Credentials;
use ckpt_objects::job_file::JobFiles;
use ckpt_objects::memory::{AddressSpace, MmFields};
use ckpt_objects::process::{Life, LiveProcess, ProcessSettings, ProcessState};
use ckpt_objects::{FilePath, NsPid};
use ckpt_session::JobState;
use ckpt_session::job::{JobInfo, Machine, Settings};

/// A job of processes given as (pid, ppid, pgid, sid), without memory, threads or descriptors.
pub fn job(launcher: i32, pgid: i32, sid: i32, processes: &[(i32, i32, i32, i32)]) -> JobState {
    JobState {
        info: JobInfo {
            restarted: Vec::new(),
            secret: 0,
            id: "0123456789abcdef".to_owned(),
            name: "test".to_owned(),
            command: vec![FilePath(b"test".to_vec())],
            launch_dir: FilePath(b"/".to_vec()),
            launch_dir_is: Default::default(),
            generation: 1,
            launched_at_ns: 0,
            taken_at_ns: 0,
            environment: Vec::new(),
            env_file: FilePath::default(),
            key: String::new(),
            cost_ns: None,
            launcher: NsPid(launcher),
            launcher_pgid: NsPid(pgid),
            launcher_sid: NsPid(sid),
            first: NsPid(processes.first().map_or(0, |process| process.0)),
            first_status: None,
            uid: 0,
            gid: 0,
            signal: 62,
            settings: Settings::default(),
        },
        machine: Machine {
            host: String::new(),
            kernel: String::new(),
            xcr0: 0,
            cpu_features: Vec::new(),
            xsave_size: 0,
            clocks: Clocks::default(),
            boot_id: String::new(),
            vdso: Vec::new(),
        },
        processes: processes.iter().map(|&(pid, ppid, pgid, sid)| process(pid, ppid, pgid, sid)).collect(),
        open_files: Vec::new(),
        pipes: Vec::new(),
        locks: Vec::new(),
        signalling: Vec::new(),
        terminals: Default::default(),
        sockets: Vec::new(),
        shared_memory: Vec::new(),
        mqueues: Vec::new(),
        system_v: Default::default(),
        mapped_files: Vec::new(),
        programs: Vec::new(),
        files: JobFiles::default(),
    }
}

fn process(pid: i32, ppid: i32, pgid: i32, sid: i32) -> ProcessState {
    let live = LiveProcess {
        memory: AddressSpace {
            space: ckpt_objects::SpaceId(0),
            vmas: Vec::new(),
            guards: Vec::new(),
            fields: MmFields::default(),
            lock_future: 0,
            protection_keys: 0,
            execute_only_key: 0,
        },
        threads: Vec::new(),
        descriptors: Vec::new(),
        signals: Default::default(),
        posix_timers: Vec::new(),
        semaphore_undo: Vec::new(),
        interval_timers: Default::default(),
        has_terminal: false,
        cwd: FilePath(b"/".to_vec()),
        removed_cwd: None,
        root: FilePath(b"/".to_vec()),
        umask: 0o22,
        limits: Vec::new(),
        credentials: Credentials::default(),
        oom_score_adj: 0,
        settings: ProcessSettings::default(),
        stopped: false,
        agent: Default::default(),
    };
    let (pid, ppid, pgid, sid) = (NsPid(pid), NsPid(ppid), NsPid(pgid), NsPid(sid));
    ProcessState {
        pid,
        ppid,
        pgid,
        sid,
        exit_signal: libc::SIGCHLD,
        started: 0,
        comm: FilePath::default(),
        life: Life::Alive(Box::new(live)),
    }
}
