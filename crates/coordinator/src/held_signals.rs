//! Signals that processes of the job hold back: sent from outside, of a kind that the coordinator acts on (`ckpt_agent`'s `shield`).
//!
//! Whether such a signal was sent to the whole job or to one process alone is known when the coordinator has got it too, or has not within a moment.

use std::time::{Duration, Instant};

use ckpt_session::HeldSignal;

/// How long after the first process the coordinator gets a signal that is sent to all: schedulers send them in one loop.
const MOMENT: Duration = Duration::from_millis(250);
/// How long after the coordinator the last process gets it.
const LATE: Duration = Duration::from_secs(2);

/// What becomes of a signal that the whole job was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is acted on: all wait.
    Awaited,
    /// It was for the coordinator alone.
    Dropped,
    /// It was given to the first process; any other that handles it has it too.
    Given,
    /// It was passed on to the first process, and comes through everywhere.
    PassedOn,
}

/// What is to be done about a process that holds a signal back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing (any more).
    Leave,
    /// It is let in.
    LetIn,
    /// It is let in if the process has a handler of its own.
    LetInIfHandled,
}

/// All that is held back, and why.
#[derive(Debug, Default)]
pub struct HeldSignals {
    waiting: Vec<(HeldSignal, Instant)>,
    /// Signals that the coordinator has got, when, and what became of them.
    heard: Vec<(i32, Instant, Fate)>,
}

impl HeldSignals {
    /// A process tells that it holds a signal back, which the coordinator acts on or (any more) does not. `is_first`: it is the job's first process.
    pub fn hold(&mut self, hold: HeldSignal, is_acted_on: bool, is_first: bool, now: Instant) -> Verdict {
        self.heard.retain(|&(_, at, fate)| fate == Fate::Awaited || now < at + LATE);
        match self.heard.iter().find(|heard| heard.0 == hold.signal).map(|heard| heard.2) {
            Some(Fate::Dropped) => Verdict::Leave,
            Some(Fate::Given | Fate::PassedOn) if is_first => Verdict::Leave,
            Some(Fate::Given) => Verdict::LetInIfHandled,
            Some(Fate::PassedOn) => Verdict::LetIn,
            None if !is_acted_on => Verdict::LetIn,
            Some(Fate::Awaited) | None => {
                self.waiting.push((hold, now));
                Verdict::Leave
            }
        }
    }

    /// The coordinator has got a signal, and acts on it.
    pub fn hear(&mut self, signal: i32, now: Instant) {
        self.heard.retain(|heard| heard.0 != signal);
        self.heard.push((signal, now, Fate::Awaited));
    }

    /// The coordinator has acted on a signal. Gives who holds it back.
    pub fn settle(&mut self, signal: i32, fate: Fate, now: Instant) -> Vec<HeldSignal> {
        self.heard.retain(|heard| heard.0 != signal);
        self.heard.push((signal, now, fate));
        self.take(|hold, _| hold.signal == signal)
    }

    /// Who has held a signal back for a moment that the coordinator did not get: it was sent to that process alone.
    pub fn alone(&mut self, now: Instant) -> Vec<HeldSignal> {
        let heard: Vec<i32> = self.heard.iter().map(|heard| heard.0).collect();
        self.take(|hold, since| !heard.contains(&hold.signal) && now >= since + MOMENT)
    }

    /// When [`HeldSignals::alone`] should be asked next.
    pub fn next(&self) -> Option<Instant> {
        let is_heard = |signal| self.heard.iter().any(|heard| heard.0 == signal);
        self.waiting.iter().filter(|(hold, _)| !is_heard(hold.signal)).map(|(_, since)| *since + MOMENT).min()
    }

    fn take(&mut self, is_it: impl Fn(&HeldSignal, Instant) -> bool) -> Vec<HeldSignal> {
        self.waiting.extract_if(.., |(hold, since)| is_it(hold, *since)).map(|(hold, _)| hold).collect()
    }
}

#[cfg(test)]
mod tests {
    use ckpt_objects::{HostPid, NsPid};

    use super::*;

    const TERM: i32 = 15;

    fn hold(pid: i32) -> HeldSignal {
        HeldSignal { pid: HostPid(pid), ns_pid: NsPid(pid), signal: TERM }
    }

    #[test]
    fn what_one_process_is_sent_comes_through_soon() {
        let (mut held, now) = (HeldSignals::default(), Instant::now());
        assert_eq!(held.hold(hold(1), true, true, now), Verdict::Leave);
        assert_eq!((held.next(), held.alone(now)), (Some(now + MOMENT), vec![]));
        assert_eq!(held.alone(now + MOMENT), [hold(1)]);
        assert_eq!(held.next(), None);
        assert_eq!(held.hold(hold(1), false, true, now), Verdict::LetIn, "nobody acts on it");
    }

    #[test]
    fn what_all_are_sent_waits_for_the_coordinator() {
        for (fate, first, other) in [
            (Fate::Dropped, Verdict::Leave, Verdict::Leave),
            (Fate::Given, Verdict::Leave, Verdict::LetInIfHandled),
            (Fate::PassedOn, Verdict::Leave, Verdict::LetIn),
        ] {
            let (mut held, now) = (HeldSignals::default(), Instant::now());
            held.hold(hold(1), true, true, now);
            held.hear(TERM, now);
            held.hold(hold(2), true, false, now);
            assert_eq!((held.next(), held.alone(now + 100 * LATE)), (None, vec![]));
            let now = now + 100 * LATE;
            assert_eq!(held.settle(TERM, fate, now), [hold(1), hold(2)]);
            assert_eq!(held.hold(hold(1), true, true, now), first);
            assert_eq!(held.hold(hold(3), true, false, now), other);
            // Another time.
            assert_eq!(held.hold(hold(3), true, false, now + LATE), Verdict::Leave);
            assert_eq!(held.alone(now + LATE + MOMENT), [hold(3)]);
        }
    }
}
