//! `ckpt-ctl`: talks to a running `ckpt-launch` or `ckpt-restart`.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ckpt_coordinator::control::{Reply, Request, Running, Status, running};
use clap::{Args, Parser, Subcommand};

/// Bad usage, or no single job is meant.
const USAGE: u8 = 120;
/// The job could not do what was asked.
const FAILED: u8 = 125;

const EXIT_CODES: &str = "Exit codes: 0 done; 120 bad usage, or no single running job is meant; 125 the job could not do it.";

/// Ask a running ckpt-launch or ckpt-restart for its status, a checkpoint, or a checkpoint after which the job ends.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 120)]
struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    command: Command,
}

/// Which job is meant; without any of these, the only one that runs.
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
    /// Print how the job is
    Status,
    /// Take a checkpoint; returns when it is durable and prints its path
    Checkpoint,
    /// The same, and end the job
    Stop,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let fail = |code, message: &dyn fmt::Display| {
        eprintln!("ckpt: {message}");
        ExitCode::from(code)
    };
    let found = match find(&arguments.which) {
        Ok(found) => found,
        Err(message) => return fail(USAGE, &message),
    };
    if let Command::Status = arguments.command {
        for (_, status) in &found {
            print_status(status);
        }
        return if found.is_empty() { fail(USAGE, &"no job of yours runs here") } else { ExitCode::SUCCESS };
    }
    let [(target, _)] = found.as_slice() else {
        let list: Vec<String> =
            found.iter().map(|(running, status)| format!("{} (pid {}, {})", running.job, running.pid, status.name)).collect();
        let message = if list.is_empty() {
            "no such job of yours runs here".to_owned()
        } else {
            format!("several jobs run here: {}; name one with --job, --pid or --dir", list.join(", "))
        };
        return fail(USAGE, &message);
    };
    let request = if matches!(arguments.command, Command::Stop) { Request::Stop } else { Request::Checkpoint };
    match target.ask(request) {
        Ok(Reply::Image(path)) => {
            println!("{path}");
            ExitCode::SUCCESS
        }
        Ok(Reply::Error(error)) => fail(FAILED, &error),
        Ok(Reply::Status(_)) => fail(FAILED, &"the coordinator answered something else"),
        Err(error) => fail(FAILED, &error),
    }
}

/// The jobs that are meant, each with its status. Those of other users do not answer.
fn find(which: &Which) -> Result<Vec<(Running, Status)>, String> {
    let all = running().map_err(|error| format!("cannot read /proc/net/unix: {error}"))?;
    let mut found = Vec::new();
    for candidate in all {
        let named =
            which.pid.is_none_or(|pid| pid == candidate.pid) && which.job.as_ref().is_none_or(|job| *job == candidate.job);
        if !named {
            continue;
        }
        if let Ok(Reply::Status(status)) = candidate.ask(Request::Status)
            && which.dir.as_ref().is_none_or(|dir| same_place(dir, Path::new(&status.dir)))
        {
            found.push((candidate, status));
        }
    }
    Ok(found)
}

fn same_place(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn print_status(status: &Status) {
    println!("job {} ({})", status.job, status.name);
    println!("  coordinator  pid {}", status.pid);
    println!("  processes    {}", status.processes);
    println!("  images       {}", status.dir);
    match status.interval {
        Some(seconds) => println!("  interval     {seconds} s"),
        None => println!("  interval     none"),
    }
    println!("  newest       {}", status.newest.as_deref().unwrap_or("none yet"));
    println!("  now          {}", if status.busy { "taking a checkpoint" } else { "idle" });
}
