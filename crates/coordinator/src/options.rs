//! The settings of a coordinator, parsed from the command line.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use ckpt_objects::job_file;
use ckpt_session::job::Interval;
use rustix::process::Signal;

/// A length of time as users write it: `300`, `0.5`, `5m`, `1h`, `2d`; seconds without a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = match text.char_indices().find(|(_, c)| c.is_ascii_alphabetic()) {
            Some((at, _)) => text.split_at(at),
            None => (text, "s"),
        };
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(format!("{unit:?} is no unit of time; use s, m, h or d")),
        };
        let number: f64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
        if number.is_nan() || number <= 0.0 {
            return Err("a time must be more than 0".into());
        }
        Duration::try_from_secs_f64(number * seconds).map(Self).map_err(|error| error.to_string())
    }
}

/// The time between checkpoints as users write it: a [`Time`], or `auto`.
///
/// # Errors
/// The text is no time; the error says what one looks like.
pub fn parse_interval(text: &str) -> Result<Interval, String> {
    if text == "auto" {
        return Ok(Interval::Auto);
    }
    text.parse().map(|Time(time)| Interval::Every(time.as_secs_f64())).map_err(|error| format!("{error}, or auto"))
}

/// The time of a run's last checkpoint, and the action that follows it: `TIME` or `TIME=ACTION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeforeEnd {
    /// How long before the end.
    pub time: Duration,
    /// `checkpoint`, `stop` or `requeue`.
    pub action: Action,
}

impl FromStr for BeforeEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (time, action) = text.split_once('=').unwrap_or((text, "stop"));
        let (Time(time), action) = (time.parse()?, action.parse()?);
        match action {
            Action::Checkpoint | Action::Stop | Action::Requeue => Ok(Self { time, action }),
            Action::CheckpointThenForward | Action::Forward => {
                Err("there is no signal to forward; use checkpoint, stop or requeue".into())
            }
        }
    }
}

/// The effect of a signal sent to the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take a checkpoint.
    Checkpoint,
    /// Take a checkpoint, end the job.
    Stop,
    /// The same, and ask the scheduler to queue it again.
    Requeue,
    /// Take a checkpoint if it is likely to fit, then pass the signal on.
    CheckpointThenForward,
    /// Pass the signal on to the job.
    Forward,
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "checkpoint" => Self::Checkpoint,
            "stop" => Self::Stop,
            "requeue" => Self::Requeue,
            "checkpoint-then-forward" => Self::CheckpointThenForward,
            "forward" => Self::Forward,
            _ => return Err(format!("{text:?} is no action; use checkpoint, stop, requeue or forward")),
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkpoint => "checkpoint",
            Self::Stop => "stop",
            Self::Requeue => "requeue",
            Self::CheckpointThenForward => "checkpoint-then-forward",
            Self::Forward => "forward",
        })
    }
}

/// The signals that the coordinator listens to, by name, with their default actions.
const DEFAULTS: &[(&str, Signal, Action)] = &[
    ("USR1", Signal::USR1, Action::Checkpoint),
    ("USR2", Signal::USR2, Action::Stop),
    ("TERM", Signal::TERM, Action::CheckpointThenForward),
    ("INT", Signal::INT, Action::Forward),
    ("HUP", Signal::HUP, Action::Forward),
    ("QUIT", Signal::QUIT, Action::Forward),
    ("WINCH", Signal::WINCH, Action::Forward),
    ("ALRM", Signal::ALARM, Action::Forward),
    ("CONT", Signal::CONT, Action::Forward),
];

/// `SIGNAL=ACTION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct On {
    /// The signal.
    pub signal: Signal,
    /// Its action.
    pub action: Action,
}

impl FromStr for On {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, action) = text.split_once('=').ok_or("write SIGNAL=ACTION, as in USR2=stop")?;
        Ok(Self { signal: parse_signal(name)?, action: action.parse()? })
    }
}

/// A signal that the job's first process receives too, or `all` signals with an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given(pub Option<Signal>);

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" { Ok(Self(None)) } else { parse_signal(text).map(|signal| Self(Some(signal))) }
    }
}

impl Given {
    /// As an image keeps it.
    #[must_use]
    pub fn to_setting(self) -> i32 {
        self.0.map_or(0, Signal::as_raw)
    }
}

/// Whether the first process receives this signal too, according to the settings in an image.
#[must_use]
pub fn is_given(signal: Signal, kept: &[i32]) -> bool {
    kept.iter().any(|&number| number == 0 || number == signal.as_raw())
}

fn parse_signal(name: &str) -> Result<Signal, String> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = DEFAULTS.iter().find(|(known, signal, _)| *known == short || signal.as_raw().to_string() == short);
    known.map(|(_, signal, _)| *signal).ok_or_else(|| {
        let names: Vec<&str> = DEFAULTS.iter().map(|(name, ..)| *name).collect();
        format!("{name:?} is no signal that can be listened to; use one of {}", names.join(", "))
    })
}

/// The action of each signal.
#[derive(Clone, Debug)]
pub struct Reactions(Vec<On>);

impl Reactions {
    /// The defaults, overridden by the user's settings.
    #[must_use]
    pub fn new(said: &[On]) -> Self {
        let mut all: Vec<On> = DEFAULTS.iter().map(|&(_, signal, action)| On { signal, action }).collect();
        for on in said {
            if let Some(known) = all.iter_mut().find(|known| known.signal == on.signal) {
                known.action = on.action;
            }
        }
        Self(all)
    }

    /// As an image keeps them.
    #[must_use]
    pub fn to_settings(&self) -> Vec<(i32, String)> {
        self.0.iter().map(|on| (on.signal.as_raw(), on.action.to_string())).collect()
    }

    /// Those of an image, overridden by the user's settings of now.
    #[must_use]
    pub fn from_settings(kept: &[(i32, String)], said: &[On]) -> Self {
        let mut all: Vec<On> = kept
            .iter()
            .filter_map(|(signal, action)| {
                Some(On { signal: parse_signal(&signal.to_string()).ok()?, action: action.parse().ok()? })
            })
            .collect();
        all.extend_from_slice(said);
        Self::new(&all)
    }

    /// The signals that the agents shield processes from: those with an action that end a process by default.
    pub fn shielded(&self) -> impl Iterator<Item = Signal> + '_ {
        let harmless = [Signal::CONT, Signal::WINCH];
        self.iter().filter(move |on| on.action != Action::Forward && !harmless.contains(&on.signal)).map(|on| on.signal)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = On> + '_ {
        self.0.iter().copied()
    }
}

/// A shell pattern of files that go into images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavePattern(pub String);

impl FromStr for SavePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("name a file or directory, or write a pattern as for a shell".into());
        }
        // Its validity does not depend on the directory that it is relative to.
        job_file::full_pattern(text, Path::new("/")).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_users_write_them() {
        for (text, ms) in
            [("300", 300_000), ("0.5", 500), ("5m", 300_000), ("1h", 3_600_000), ("250ms", 250), ("1.5h", 5_400_000)]
        {
            assert_eq!(text.parse(), Ok(Time(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "0", "-1", "5x", "h", "1e400"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    #[test]
    fn intervals_and_ends_are_read_as_users_write_them() {
        assert_eq!(parse_interval("auto"), Ok(Interval::Auto));
        assert_eq!(parse_interval("5m"), Ok(Interval::Every(300.0)));
        assert!(parse_interval("often").is_err_and(|error| error.contains("auto")));
        let end = |time, action| Ok(BeforeEnd { time: Duration::from_secs(time), action });
        assert_eq!("90s".parse(), end(90, Action::Stop));
        assert_eq!("2m=requeue".parse(), end(120, Action::Requeue));
        assert!("90s=forward".parse::<BeforeEnd>().is_err() && "=stop".parse::<BeforeEnd>().is_err());
    }

    #[test]
    fn signals_are_given_by_name_or_all() {
        let kept = |text: &str| vec![text.parse::<Given>().unwrap().to_setting()];
        assert!(is_given(Signal::USR1, &kept("all")) && is_given(Signal::USR1, &kept("SIGUSR1")));
        assert!(!is_given(Signal::USR2, &kept("usr1")) && !is_given(Signal::USR2, &[]));
        assert!("KILL".parse::<Given>().is_err() && "".parse::<Given>().is_err());
    }

    #[test]
    fn what_was_said_survives_a_restart() {
        let first = Reactions::new(&["USR2=requeue".parse().unwrap(), "sigterm=stop".parse().unwrap()]);
        let second = Reactions::from_settings(&first.to_settings(), &["USR1=forward".parse().unwrap()]);
        let action = |signal| second.iter().find(|on| on.signal == signal).unwrap().action;
        assert_eq!(action(Signal::USR2), Action::Requeue);
        assert_eq!(action(Signal::TERM), Action::Stop);
        assert_eq!(action(Signal::USR1), Action::Forward);
        assert_eq!(action(Signal::INT), Action::Forward);
        assert!("KILL=stop".parse::<On>().is_err() && "USR1=dance".parse::<On>().is_err());
    }
}
