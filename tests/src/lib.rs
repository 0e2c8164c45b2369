//! The harness of the end-to-end tests: real programs under the real tools, killed with SIGKILL and brought back.
//!
//! A test is a [`Job`]: a command whose output does not depend on when it runs. It is run plainly, then again under
//! `ckpt-launch`, killed at moments drawn at random and restarted with `ckpt-restart`; both must have printed the same
//! bytes, left the same files and ended with the same exit code. The tests themselves, and the small C programs of
//! `programs/`, stand beside this library; nothing here knows how the engine works, only what its commands promise.
//!
//! - `CKPT_BIN`: the folder of the tools, where it is not that of the running test's build.
//! - `CKPT_TEST_SEED`: the seed of all random moments. Every test prints the one it used.
//!
//! A test that cannot run here (no root, no AVX-512) says so on standard error and in the file of
//! [`not_run`](identity::not_run): it is reported, never counted silently as passed.

#![forbid(unsafe_code)]

pub mod artifacts;
pub mod condor;
pub mod control_group;
pub mod examples;
pub mod file_tree;
pub mod identity;
pub mod job;
pub mod real;
pub mod sandbox;
pub mod slurm;
pub mod soak;
pub mod staged;
pub mod terminal;
pub mod tree;

pub use artifacts::{program, tool};
pub use file_tree::FileTree;
pub use identity::{Identity, not_run};
pub use job::{Job, Output};
pub use sandbox::{Running, Sandbox};
pub use staged::Staged;
pub use terminal::Terminal;

/// Makes the tests `NAME::as_root`, `NAME::as_user` and `NAME::left_running`: the job survives three kills as either user, and
/// does not notice ten checkpoints a second.
#[macro_export]
macro_rules! survives {
    ($(#[$meta:meta])* $name:ident, $job:expr) => {
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            #[test]
            fn as_root() {
                $crate::Identity::Root.run(|identity| $job.survives(identity, 3));
            }
            #[test]
            fn as_user() {
                $crate::Identity::User.run(|identity| $job.survives(identity, 3));
            }
            #[test]
            fn left_running() {
                $job.left_running($crate::Identity::own());
            }
        }
    };
}

/// Makes the tests `NAME::as_root`, `NAME::as_user` and `NAME::left_running`: the job is killed three times, each time within 0.7 s of a restart that has begun, and whatever
/// it leaves is as if it never had been; nor does it notice checkpoints. It must take two and a half seconds at least.
#[macro_export]
macro_rules! files_survive {
    ($name:ident, $job:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            const SPAN: std::time::Duration = std::time::Duration::from_millis(700);
            #[test]
            fn as_root() {
                $crate::Identity::Root.run(|identity| $job.survives_within(SPAN, identity, 3));
            }
            #[test]
            fn as_user() {
                $crate::Identity::User.run(|identity| $job.survives_within(SPAN, identity, 3));
            }
            #[test]
            fn left_running() {
                $job.left_running($crate::Identity::own());
            }
        }
    };
}

/// Makes the tests `NAME::as_root` and `NAME::as_user` of each function `NAME`, which takes the identity.
#[macro_export]
macro_rules! as_either {
    ($($name:ident)*) => {
        $(mod $name {
            #[test]
            fn as_root() {
                $crate::Identity::Root.run(super::$name);
            }
            #[test]
            fn as_user() {
                $crate::Identity::User.run(super::$name);
            }
        })*
    };
}

/// Makes a test `refused::NAME` for each argument of `programs/PROGRAM.c` that names something which is refused: what the message says. See
/// [`Job::is_refused`].
#[macro_export]
macro_rules! refused {
    ($program:literal, $most_images:literal: $($name:ident: $what:literal)*) => {
        mod refused {
            $(#[test] fn $name() {
                let job = $crate::Job::new([$crate::program($program).as_os_str(), stringify!($name).as_ref()]);
                job.is_refused($what, $most_images);
            })*
        }
    };
}

/// Makes the tests of a self-checking program of `programs`, which is run five ways. `NAME::as_root` kills and restarts it, twice at random moments;
/// `NAME::as_user` restarts it three times over, each from an image of the restarted run itself, as an ordinary user; `NAME::left_running`
/// checkpoints it ten times a second; and all three compare it with a plain run. Without a second argument it is `programs/NAME.c`.
#[macro_export]
macro_rules! program_survives {
    ($name:ident) => {
        $crate::program_survives!($name, $crate::Job::program(stringify!($name), $crate::job::ROUNDS, &[]));
    };
    ($name:ident, $job:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            #[test]
            fn as_root() {
                $crate::Identity::Root.run(|identity| $job.survives(identity, 2));
            }
            #[test]
            fn as_user() {
                $crate::Identity::User.run(|identity| $job.survives_chain(identity, 3));
            }
            #[test]
            fn left_running() {
                $job.left_running($crate::Identity::own());
            }
        }
    };
}
