//! Restarting a job and staying with it.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use ckpt_coordinator::files::Files;
use ckpt_coordinator::{Restarted, coordinate_restarted};
use ckpt_image::generations::{Selected, mark_in_use};
use ckpt_objects::sysv::EarlierIds;
use ckpt_objects::terminal::OwnTerminal;
use ckpt_restore::{Options, RestoreError, RestoredJob, read_job, restore};
use ckpt_session::JobState;
use ckpt_session::Reporter;
use ckpt_session::io_uring::{self, IoUring};
use ckpt_session::job::Settings;
use ckpt_session::living;

use crate::{RunOptions, exit};

/// Restarts a job, stays with it, and returns the exit code. `settings` turns the settings in the image into those of this run. `held` is the
/// image's lock, if the caller has it.
pub fn restart(
    selected: &Selected,
    held: Option<File>,
    options: &RunOptions,
    settings: impl Fn(&Settings) -> Settings,
    reporter: Reporter,
) -> u8 {
    for skipped in &selected.skipped {
        reporter.error(format_args!("passed over: {}", skipped.reason));
    }
    let path = selected.image.path();
    if !options.again
        && let Ok(job) = read_job(&selected.image)
        && let Err(living) = make_room(&job, options.replace)
    {
        reporter.error(format_args!("the job of {} lives: {living}", path.display()));
        return exit::CANNOT_RESTART;
    }
    let held = held.or_else(|| mark_in_use(path).ok());
    let terminal = OwnTerminal::find();
    let earlier_ids = EarlierIds::observe();
    let restored = read_job(&selected.image).and_then(|mut job| {
        let settings = settings(&job.info.settings);
        run_hooks(&settings.hooks.restart, path, job.info.generation, reporter);
        if job.info.settings.io_uring == IoUring::Forbidden {
            io_uring::forbid().map_err(RestoreError::IoUring)?;
        }
        job.info.settings.on = settings.on;
        let dir = (settings.dir != job.info.settings.dir).then(|| settings.dir.as_path().to_owned());
        let options = Options { maps: options.map.clone(), strict: options.strict, refresh_env: settings.refresh_env, dir };
        restore(&selected.image, &job, &options, terminal.as_ref(), &|what| reporter.event(what)).map(|restored| (job, restored))
    });
    let (job, restored) = match restored {
        Ok(both) => both,
        Err(error) => return refuse(&error, reporter),
    };
    announce(&job, &restored, reporter);
    let RestoredJob { stand_in, listener, ends, shares_session, makers, mut info, files, .. } = restored;
    let files = Files::go_on(&files, info.generation);
    info.settings = settings(&info.settings);
    find_directory(&mut info.settings, path, reporter);
    let restarted = Restarted {
        files,
        info,
        reaper: stand_in,
        listener,
        report: ends,
        terminal,
        shares_session,
        makers,
        earlier_ids,
        image: held,
    };
    match coordinate_restarted(restarted, reporter) {
        Ok(code) => code,
        Err(error) => {
            reporter.error(error);
            exit::CANNOT_RESTART
        }
    }
}

fn refuse(error: &RestoreError, reporter: Reporter) -> u8 {
    reporter.error(error);
    if error.is_of_image() { exit::IMAGE_INVALID } else { exit::CANNOT_RESTART }
}

/// Runs the user's hooks before the restart. Nothing of the job exists yet, so nothing waits for them.
fn run_hooks(hooks: &[String], image: &Path, generation: u64, reporter: Reporter) {
    for line in hooks {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).stdin(Stdio::null()).stdout(std::io::stderr());
        command.env("CKPT_IMAGE", image).env("CKPT_GENERATION", generation.to_string());
        let failure = match command.status() {
            Ok(status) if status.success() => continue,
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        reporter.error(format_args!("the hook before the restart failed: {line}: {failure}"));
    }
}

/// The image directory may have been on another machine. Then later images go to the directory of this image.
fn find_directory(settings: &mut Settings, image: &Path, reporter: Reporter) {
    let dir = settings.dir.as_path();
    let home = image.canonicalize().ok().and_then(|image| image.parent().map(Path::to_path_buf));
    if let Some(home) = home.filter(|_| !dir.exists()) {
        reporter.event(format_args!("{} is gone; images go to {}", dir.display(), home.display()));
        settings.dir = home.into();
    }
}

/// Sees to it that no process of this job lives. The error says which one does, and what to do.
fn make_room(job: &JobState, replace: bool) -> Result<(), String> {
    let pids: Vec<_> = job.processes.iter().map(|process| process.pid).collect();
    let id = &job.info.id;
    match living::process_of(id, &pids) {
        None => Ok(()),
        Some(_) if replace => living::end(id, &pids).map_err(|pid| format!("process {pid} does not end")),
        Some(pid) => Err(format!(
            "process {pid} belongs to it; give --replace to end what is left of it, or --again for a second copy beside it"
        )),
    }
}

fn announce(job: &JobState, restored: &RestoredJob, reporter: Reporter) {
    for note in &restored.notes {
        reporter.event(note);
    }
    let RestoredJob { processes, threads, .. } = restored;
    let s = |count: &usize| if *count == 1 { "" } else { "s" };
    let es = if *processes == 1 { "" } else { "es" };
    let generation = job.info.generation;
    reporter
        .event(format_args!("restarted from checkpoint {generation} ({processes} process{es}, {threads} thread{})", s(threads)));
}
