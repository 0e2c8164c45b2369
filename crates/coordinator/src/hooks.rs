//! The user's commands around checkpoints. A failing command costs a message, not the job.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ckpt_session::Reporter;
use ckpt_session::job::Hooks;

use crate::helpers::Helpers;

/// How long a command may take: the checkpoint, or the end of the run, waits for it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs hooks.
pub struct HookRunner {
    hooks: Hooks,
    helpers: Arc<Helpers>,
    reporter: Reporter,
    /// How many images have hooks that still run.
    running: AtomicUsize,
}

impl HookRunner {
    /// For these hooks.
    pub fn new(hooks: Hooks, helpers: Arc<Helpers>, reporter: Reporter) -> Self {
        Self { hooks, helpers, reporter, running: AtomicUsize::new(0) }
    }

    /// Before a checkpoint, which will be this image: returns when they have ended.
    pub fn before(&self, image: &Path, generation: u64) {
        self.run("before", &self.hooks.before, image, generation);
    }

    /// When this image is durable: returns when they have ended.
    pub fn after(&self, image: &Path, generation: u64) {
        self.run("after", &self.hooks.after, image, generation);
    }

    /// The same, beside.
    pub fn after_beside(self: &Arc<Self>, image: &Path, generation: u64) {
        if self.hooks.after.is_empty() {
            return;
        }
        self.running.fetch_add(1, Ordering::Relaxed);
        let (own, path) = (Arc::clone(self), image.to_owned());
        let started = std::thread::Builder::new().spawn(move || {
            own.after(&path, generation);
            own.running.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            self.after(image, generation);
            self.running.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether some run still.
    pub fn are_running(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    fn run(&self, when: &str, commands: &[String], image: &Path, generation: u64) {
        let generation_text = OsString::from(generation.to_string());
        let variables = [("CKPT_IMAGE", image.as_os_str()), ("CKPT_GENERATION", generation_text.as_os_str())];
        for command in commands {
            if let Err(error) = self.helpers.run(command, &variables, PATIENCE) {
                self.reporter.error(format_args!("the hook {when} checkpoint {generation} failed: {command}: {error}"));
            }
        }
    }
}
