//! The variables that a process of the job finds in its environment, and the names and numbers that both sides know without them.

use ckpt_sys::signal_set::SignalSet;

/// Variable with the job's id. Its presence makes the agent active.
pub const ENV_JOB: &str = "CKPT_JOB_ID";
/// Variable with the directory of the images.
pub const ENV_DIR: &str = "CKPT_DIR";
/// Variable with the number of the checkpoint signal; [`DEFAULT_SIGNAL`] where it is missing.
pub const ENV_SIGNAL: &str = "CKPT_SIGNAL";
/// Variable with the path of the agent's library.
pub const ENV_AGENT: &str = "CKPT_AGENT";
/// Variable with the signals that processes of the job are shielded from: the launcher's pid, a colon, and numbers of signals, as in
/// `4711:10,12,15`.
pub const ENV_SHIELD: &str = "CKPT_SHIELD";
/// Variable with the path of a file that holds the variables of the batch job that the job runs in now.
pub const ENV_FILE: &str = "CKPT_ENV_FILE";

/// The checkpoint signal: `SIGRTMAX - 2`. Real-time signals near the top are the least used of all.
pub const DEFAULT_SIGNAL: i32 = 62;

/// How the name of the coordinator's abstract socket begins. The job's id, `/` and the inode number of the job's pid namespace follow.
/// Two restarts of one image live in different pid namespaces, so their coordinators have different names, while the
/// environment that the job keeps from before stays right.
pub const SOCKET_PREFIX: &str = "ckpt/";

/// The signals 63 and 64. A program that starts with [`HELD_MARK`] alone of them blocked has its shielded signals blocked by the agent of
/// the program before it, not by that program. The signals 32 and 33 cannot serve: no program can block them, and glibc does not pass
/// them on to a program that it spawns.
pub const HELD_MARKS: SignalSet = SignalSet::of_all(&[63, 64]);
/// The signal 63: see [`HELD_MARKS`].
pub const HELD_MARK: SignalSet = SignalSet::of(63);
