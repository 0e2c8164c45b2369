//! `ckpt-ctl`: controls a running job through its `ckpt-launch` or `ckpt-restart`.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ckpt_cli::exit;
use ckpt_coordinator::control::{Reply, Request, Running, Status, running};
use ckpt_session::harmless;
use ckpt_wire::ENV_JOB;
use clap::{Args, Parser, Subcommand};

/// How long a restarted job's coordinator may take to begin.
const RESTART: Duration = Duration::from_secs(10);

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  120  bad usage, or the options do not select exactly one running job
  125  the request failed";

/// Control a running job: print its status, take a checkpoint, or stop it with a checkpoint.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 120)]
struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    command: Command,
}

/// Selects a job. Without any of these it is the one that ckpt-ctl is run in, or else the only one.
#[derive(Args)]
#[group(multiple = false)]
struct Which {
    /// The job whose images go to DIR
    #[arg(short, long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The job of the ckpt-launch or ckpt-restart with this pid
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// The job with this id
    #[arg(long, value_name = "ID")]
    job: Option<String>,
}

#[derive(Subcommand, Clone, Copy)]
enum Command {
    /// Print the status of the job
    Status,
    /// Take a checkpoint, wait until it is durable, and print its path
    Checkpoint,
    /// Take a checkpoint likewise, and end the job
    Stop,
}

fn main() -> ExitCode {
    let arguments: Arguments = match exit::read_command_line() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("ckpt: {message}");
            ExitCode::from(code)
        }
    }
}

/// Does what is asked. The error is the exit code and the message.
fn run(arguments: &Arguments) -> Result<(), (u8, String)> {
    let found = find(&arguments.which)?;
    let request = match arguments.command {
        Command::Status if found.is_empty() => return Err((exit::USAGE, "no job of yours is running here".to_owned())),
        Command::Status => {
            found.iter().for_each(|(_, status)| print_status(status));
            return Ok(());
        }
        Command::Checkpoint => Request::Checkpoint,
        Command::Stop => Request::Stop,
    };
    let target = only(&found)?;
    match target.ask(request) {
        Ok(Reply::Image(path)) => {
            println!("{path}");
            Ok(())
        }
        Ok(Reply::Error(error)) => Err((exit::FAILED, error)),
        Ok(Reply::Status(_)) => Err((exit::FAILED, "the coordinator sent an unexpected reply".to_owned())),
        Err(error) if own_job().as_ref() == Some(&target.job) && is_end(&error) && goes_on_elsewhere(target) => {
            eprintln!("ckpt: this job was restarted from a checkpoint");
            Ok(())
        }
        Err(error) => Err((exit::FAILED, error.to_string())),
    }
}

/// The job that this process is in.
fn own_job() -> Option<String> {
    std::env::var(ENV_JOB).ok()
}

/// Whether an answer did not come because nobody is there any more to give it.
fn is_end(error: &std::io::Error) -> bool {
    let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::NotConnected];
    ends.contains(&error.kind())
}

/// Whether the job has another coordinator: this process was in the image that it waited for, and has been brought back with the job.
fn goes_on_elsewhere(former: &Running) -> bool {
    let end = Instant::now() + RESTART;
    loop {
        let is_other = |now: &Running| now.job == former.job && now.pid != former.pid;
        if running().is_ok_and(|all| all.iter().any(is_other)) {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The job, if exactly one was found.
fn only(found: &[(Running, Status)]) -> Result<&Running, (u8, String)> {
    let message = match found {
        [(target, _)] => return Ok(target),
        [] => "no such job of yours is running here".to_owned(),
        several => {
            let list = several
                .iter()
                .map(|(running, status)| format!("{} (pid {}, {})", running.job, running.pid, harmless(&status.name)));
            let list = list.collect::<Vec<_>>().join(", ");
            format!("several jobs are running here: {list}; name one with --job, --pid or --dir")
        }
    };
    Err((exit::USAGE, message))
}

/// The selected jobs, each with its status. Jobs of other users do not answer.
fn find(which: &Which) -> Result<Vec<(Running, Status)>, (u8, String)> {
    let all = running().map_err(|error| (exit::USAGE, format!("failed to read /proc/net/unix: {error}")))?;
    let mut found = Vec::new();
    let mut late = Vec::new();
    let is_open = which.dir.is_none() && which.pid.is_none();
    let job = which.job.clone().or_else(|| own_job().filter(|_| is_open));
    for candidate in all {
        let named = which.pid.is_none_or(|pid| pid == candidate.pid) && job.as_ref().is_none_or(|job| *job == candidate.job);
        if !named {
            continue;
        }
        match candidate.ask(Request::Status) {
            Ok(Reply::Status(status)) if which.dir.as_ref().is_none_or(|dir| same_place(dir, Path::new(&status.dir))) => {
                found.push((candidate, status));
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => late.push(error.to_string()),
            _ => (),
        }
    }
    if found.is_empty() && !late.is_empty() {
        return Err((exit::FAILED, late.join("\nckpt: ")));
    }
    late.iter().for_each(|message| eprintln!("ckpt: {message}"));
    Ok(found)
}

fn same_place(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn print_status(status: &Status) {
    println!("job {} ({})", harmless(&status.job), harmless(&status.name));
    println!("  coordinator  pid {}", status.pid);
    println!("  processes    {}", status.processes);
    println!("  images       {}", harmless(&status.dir));
    match status.interval {
        Some(seconds) => println!("  interval     {seconds} s"),
        None => println!("  interval     none"),
    }
    println!("  newest       {}", harmless(status.newest.as_deref().unwrap_or("none yet")));
    println!("  now          {}", if status.busy { "taking a checkpoint" } else { "idle" });
}
