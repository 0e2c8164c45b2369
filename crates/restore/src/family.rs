//! Rebuilds the process tree: each process forks its children, takes its place, and waits for all others.
#![allow(unsafe_code, reason = "processes are forked, and end without what the restart registered")]

use std::convert::Infallible;

use ckpt_objects::open_file::{self, Files};
use ckpt_objects::process::{Life, ProcessState};
use ckpt_objects::sysv;
use ckpt_sys::fork::{Fork, fork_telling};

use crate::control::Phase;
use crate::error::ProcessError;
use crate::restart::{Restart, exit};
use crate::restorer::FAILED_EXIT_CODE;
use crate::tree::{Index, Node, Role, Tree};
use crate::{process, standin, terminals};

/// Runs as the process `index` of the tree, and makes all below it. `files` is there in the stand-in and below it.
pub fn grow(restart: &Restart<'_>, index: Index, files: Option<&Files>) -> ! {
    let node = &restart.tree.nodes[index];
    let who = match node.role {
        Role::Init => "the init process".to_owned(),
        Role::StandIn => "the launcher's stand-in".to_owned(),
        Role::Job(_) | Role::Temporary => format!("process {}", node.pid),
    };
    match take_place(restart, index, files) {
        Ok(never) => match never {},
        Err(error) => restart.fail(&who, &error),
    }
}

fn take_place(restart: &Restart<'_>, index: Index, files: Option<&Files>) -> Result<Infallible, ProcessError> {
    let node = &restart.tree.nodes[index];
    let process = restart.process(node);
    let built;
    let files = if node.role == Role::StandIn {
        standin::prepare()?;
        built = open_file::rebuild(restart)?;
        Some(&built)
    } else {
        files
    };
    for &child in &node.early {
        make(restart, child, files)?;
    }
    if node.leads_session {
        rustix::process::setsid().map_err(ProcessError::call("begin its session"))?;
        terminals::take_control(restart, node, files)?;
    }
    for &child in &node.late {
        make(restart, child, files)?;
    }
    take_group(restart, node)?;
    terminals::take_foreground(restart, node, files)?;
    if let Some(live) = restart.live(node) {
        terminals::give_up_control(live)?;
    }
    take_parent(restart, node)?;
    if let Some(Life::Zombie { status }) = process.map(|process| &process.life) {
        process::set_name(&process.map(|process| process.comm.clone()).unwrap_or_default());
        end_like(*status)
    }
    for &pid in &node.dead_children {
        // The dead must be dead, and their parents told, before the parents forget what they were told.
        wait_for_end(pid, libc::WNOWAIT)?;
    }
    if let Some(Life::Alive(live)) = process.map(|process| &process.life) {
        sysv::rebuild_undo(&live.semaphore_undo)?;
    }
    restart.control.meet(Phase::Settled, restart.tree.lasting());
    match (process.map(|process| (process, &process.life)), files) {
        (Some((process, Life::Alive(live))), Some(files)) => {
            check_identity(process)?;
            process::become_process(restart, process, live, files)
        }
        _ => standin::serve(restart, node, files),
    }
}

/// Forks a node of the tree.
fn make(restart: &Restart<'_>, child: Index, files: Option<&Files>) -> Result<(), ProcessError> {
    let node = &restart.tree.nodes[child];
    let pid = node.pid;
    let exit_signal = restart.process(node).map_or(libc::SIGCHLD, |process| process.exit_signal);
    // SAFETY: processes of a restart have one thread while the tree grows; the threads that filled memory have ended.
    match unsafe { fork_telling(0, Some(pid), exit_signal) } {
        Ok(Fork::Child) => grow(restart, child, files),
        Ok(Fork::Parent(_)) => Ok(()),
        Err(error) => Err(ProcessError::raw(format!("make process {pid} with its number"))(error)),
    }
}

/// Founds and joins process groups, together with all others.
fn take_group(restart: &Restart<'_>, node: &Node) -> Result<(), ProcessError> {
    let everybody = restart.tree.nodes.len() as u32;
    let join = |group: i32| {
        // SAFETY: takes numbers only.
        let result = unsafe { libc::setpgid(0, group) };
        if result == 0 {
            Ok(())
        } else {
            Err(ProcessError::call(format!("join process group {group}"))(std::io::Error::last_os_error()))
        }
    };
    let leave_own = node.founds_group && node.group.is_some_and(|group| group != node.pid);
    restart.control.meet(Phase::Created, everybody);
    if node.founds_group {
        join(0)?;
    }
    restart.control.meet(Phase::Founded, everybody);
    // SAFETY: takes no argument.
    let present = unsafe { libc::getpgrp() };
    let group = node.group.filter(|&group| group != present);
    if let (Some(group), false) = (group, leave_own) {
        join(group)?;
    }
    restart.control.meet(Phase::Joined, everybody);
    if let (Some(group), true) = (group, leave_own) {
        join(group)?;
    }
    restart.control.meet(Phase::Grouped, everybody);
    Ok(())
}

/// Lets temporary processes end, together with all others, in the steps of the plan: their children become those of their parents.
fn take_parent(restart: &Restart<'_>, node: &Node) -> Result<(), ProcessError> {
    let Tree { nodes, present, .. } = restart.tree;
    let mut is_subreaper = node.role == Role::StandIn;
    let mut set_subreaper = |wanted: bool| {
        if std::mem::replace(&mut is_subreaper, wanted) == wanted { Ok(()) } else { process::set_subreaper(wanted) }
    };
    let mut passed = 0;
    for (step, pair) in present.windows(2).enumerate() {
        set_subreaper(node.adopts_at == Some(step))?;
        passed += pair[0];
        restart.control.meet_in_steps(passed);
        let ends = |node: &Node| node.role == Role::Temporary && node.ends_at == step;
        if ends(node) {
            exit(0);
        }
        for child in node.early.iter().chain(&node.late).map(|&child| &nodes[child]).filter(|child| ends(child)) {
            wait_for_end(child.pid, 0)?;
        }
        passed += pair[1];
        restart.control.meet_in_steps(passed);
    }
    set_subreaper(match restart.live(node) {
        Some(live) => live.settings.child_subreaper,
        None => node.role == Role::StandIn,
    })
}

/// Waits until a child has ended; with `WNOWAIT` it stays to be waited for.
fn wait_for_end(pid: i32, flags: i32) -> Result<(), ProcessError> {
    loop {
        // SAFETY: `info` is written by the call, and lives over it.
        let result = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid.unsigned_abs(), &raw mut info, libc::WEXITED | libc::__WALL | flags)
        };
        if result == 0 {
            return Ok(());
        }
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(ProcessError::call(format!("wait for process {pid}"))(error));
        }
    }
}

/// Ends so that the parent gets this wait status. The mark that a core was dumped is lost: none must be dumped again.
fn end_like(status: i32) -> ! {
    if !libc::WIFSIGNALED(status) {
        exit(libc::WEXITSTATUS(status));
    }
    let signal = libc::WTERMSIG(status);
    // SAFETY: sets a limit, a default action and a signal mask of this process, which then ends; all pointers live over the
    // calls.
    unsafe {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(signal, libc::SIG_DFL);
        let all = 0u64;
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0, 8);
        libc::kill(libc::getpid(), signal);
    }
    // A signal whose default action does not end a process cannot have ended one.
    exit(FAILED_EXIT_CODE)
}

fn check_identity(process: &ProcessState) -> Result<(), ProcessError> {
    // SAFETY: these take numbers only.
    let (ppid, pgid, sid) = unsafe { (libc::getppid(), libc::getpgrp(), libc::getsid(0)) };
    for (what, got, wanted) in
        [("parent", ppid, process.ppid.0), ("process group", pgid, process.pgid.0), ("session", sid, process.sid.0)]
    {
        if got != wanted {
            return Err(ProcessError::Identity { what, got, wanted });
        }
    }
    Ok(())
}
