//! A report as text for people.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use ckpt_objects::FilePath;
use ckpt_objects::job_file::{Contents, FileKind, JobFile, Role};
use ckpt_objects::open_file::describe;
use ckpt_objects::process::{Life, LiveProcess, ProcessState};
use ckpt_session::{Bytes, JobState};

use crate::report::{ImageReport, Sizes};
use crate::tree::in_tree_order;

/// Displays a report in some tens of lines.
pub struct Summary<'a>(pub &'a ImageReport<'a>);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ImageReport { path, sizes, state, .. } = self.0;
        writeln!(f, "{}", printable(path))?;
        job(f, state)?;
        size(f, sizes)?;
        processes(f, state, sizes)?;
        open_files(f, state)?;
        mapped_files(f, state)?;
        job_files(f, state)
    }
}

fn job(f: &mut fmt::Formatter<'_>, state: &JobState) -> fmt::Result {
    let JobState { info, machine, .. } = state;
    let taken = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_nanos(info.taken_at_ns));
    let command: Vec<_> = info.command.iter().map(quoted).collect();
    writeln!(f, "  job         {} {}, checkpoint {}", printable(&info.name), printable(&info.id), info.generation)?;
    writeln!(f, "  command     {}", command.join(" "))?;
    writeln!(f, "  launched in {}", printable(&info.launch_dir))?;
    writeln!(f, "  taken       {taken} on {} (Linux {})", printable(&machine.host), printable(&machine.kernel))?;
    let settings = &info.settings;
    let interval = settings.interval.map_or("on request only".to_owned(), |interval| interval.to_string());
    writeln!(
        f,
        "  settings    checkpoints {interval} in {}, {} kept, {}",
        printable(&settings.dir),
        settings.keep,
        printable(&settings.compress)
    )
}

fn size(f: &mut fmt::Formatter<'_>, sizes: &Sizes) -> fmt::Result {
    write!(f, "  size        {}", Bytes(sizes.file))?;
    if sizes.stored > 0 {
        let ratio = sizes.pages as f64 / sizes.stored as f64;
        write!(
            f,
            ", pages {} → {} on disk (ratio {ratio:.1}), {} chunks",
            Bytes(sizes.pages),
            Bytes(sizes.stored),
            sizes.chunks
        )?;
    }
    writeln!(f, ", metadata {}", Bytes(sizes.metadata))
}

fn processes(f: &mut fmt::Formatter<'_>, state: &JobState, sizes: &Sizes) -> fmt::Result {
    let threads: usize = state.processes.iter().filter_map(live).map(|process| process.threads.len()).sum();
    writeln!(f, "  processes   {}, {threads} threads", state.processes.len())?;
    writeln!(f, "    {:>7} {:>7} {:>7} {:>11} {:>11}  NAME", "PID", "PPID", "THREADS", "DESCRIPTORS", "PAGES")?;
    for (depth, process) in in_tree_order(&state.processes) {
        let (pid, ppid, name) = (process.pid, process.ppid, printable(&process.comm));
        // Deeper levels cannot be distinguished by eye any more.
        let indent = "  ".repeat(depth.min(30));
        match &process.life {
            Life::Alive(live) => {
                let pages = Bytes(sizes.spaces.get(&live.memory.space.0).copied().unwrap_or(0));
                let (threads, descriptors) = (live.threads.len(), live.descriptors.len());
                writeln!(f, "    {pid:>7} {ppid:>7} {threads:>7} {descriptors:>11} {pages:>11}  {indent}{name}")?;
            }
            Life::Zombie { status } => {
                let end = ending(*status);
                writeln!(f, "    {pid:>7} {ppid:>7} {:>7} {:>11} {:>11}  {indent}{name} ({end})", "-", "-", "-")?;
            }
        }
    }
    Ok(())
}

fn open_files(f: &mut fmt::Formatter<'_>, state: &JobState) -> fmt::Result {
    let mut descriptors = vec![0_usize; state.open_files.len()];
    for entry in state.processes.iter().filter_map(live).flat_map(|process| &process.descriptors) {
        if let Some(count) = descriptors.get_mut(entry.file.at()) {
            *count += 1;
        }
    }
    let total: usize = descriptors.iter().sum();
    writeln!(f, "  open files  {}, {total} descriptors", state.open_files.len())?;
    for (file, count) in state.open_files.iter().zip(descriptors) {
        writeln!(f, "    {count:>3} x {:<12} {}", access(file.flags), printable(&describe(state.objects(), file)))?;
    }
    Ok(())
}

fn mapped_files(f: &mut fmt::Formatter<'_>, state: &JobState) -> fmt::Result {
    writeln!(f, "  mapped files {}", state.mapped_files.len())?;
    for file in &state.mapped_files {
        let deleted = if file.deleted { " (deleted)" } else { "" };
        writeln!(f, "    {:>11}  {}{deleted}", Bytes(file.size), printable(&file.path))?;
    }
    Ok(())
}

/// The files that a restart restores or checks.
fn job_files(f: &mut fmt::Formatter<'_>, state: &JobState) -> fmt::Result {
    let files = &state.files.files;
    let patterns: Vec<String> = state.info.settings.save_files.iter().map(printable).collect();
    if files.is_empty() && patterns.is_empty() {
        return Ok(());
    }
    let named = if patterns.is_empty() { String::new() } else { format!(" (--save-files {})", patterns.join(" ")) };
    writeln!(f, "  files of the job {}{named}", files.len())?;
    for JobFile { path, role, state } in files {
        let role = match role {
            Role::Read => "only read",
            Role::Touched => "touched",
            Role::Named => "named",
        };
        let Some(state) = state else {
            writeln!(f, "    {:>11}  {role:<9}      {}", "gone", printable(path))?;
            continue;
        };
        let (size, more) = match &state.kind {
            FileKind::Regular { size, contents: Contents::Held(_) } => (Bytes(*size).to_string(), ""),
            FileKind::Regular { size, contents: Contents::Hashed(_) } => (Bytes(*size).to_string(), " (hash only)"),
            FileKind::Regular { size, contents: Contents::Unknown } => (Bytes(*size).to_string(), " (contents not held)"),
            FileKind::Link { .. } => ("link".to_owned(), ""),
            FileKind::Directory => ("directory".to_owned(), ""),
            FileKind::Fifo => ("named pipe".to_owned(), ""),
            FileKind::Socket => ("socket".to_owned(), ""),
            FileKind::Device => ("device".to_owned(), ""),
        };
        let target =
            if let FileKind::Link { target } = &state.kind { format!(" -> {}", printable(target)) } else { String::new() };
        writeln!(f, "    {size:>11}  {role:<9} {:04o} {}{target}{more}", state.mode, printable(path))?;
    }
    Ok(())
}

fn live(process: &ProcessState) -> Option<&LiveProcess> {
    match &process.life {
        Life::Alive(live) => Some(live),
        Life::Zombie { .. } => None,
    }
}

/// The end of a process, from its wait status (wait(2)).
fn ending(status: i32) -> String {
    match status & 0x7f {
        0 => format!("exited with code {}", status >> 8 & 0xff),
        signal => format!("killed by signal {signal}"),
    }
}

/// The access mode and `O_APPEND` of open(2).
fn access(flags: u32) -> &'static str {
    const O_APPEND: u32 = 0o2000;
    match (flags & 0o3, flags & O_APPEND != 0) {
        (0, _) => "read",
        (1, false) => "write",
        (1, true) => "append",
        (_, false) => "read-write",
        (_, true) => "read-append",
    }
}

/// Text from an image with its control characters escaped, so that a terminal does not interpret them.
fn printable(text: &(impl fmt::Display + ?Sized)) -> String {
    text.to_string().chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// An argument as typed to a shell.
fn quoted(argument: &FilePath) -> String {
    let text = printable(argument);
    // Only a NUL cannot be quoted, and that is a control character.
    shlex::try_quote(&text).map_or(text.clone(), |quoted| quoted.into_owned())
}
