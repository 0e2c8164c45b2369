//! The times of checkpoints. They follow each other at a given interval, or at the one that loses the least time. A run's last checkpoint
//! comes before its time limit.

use std::time::{Duration, Instant};

use ckpt_session::job::{Interval, Settings};

use crate::options::Action;

/// The time of the first checkpoint if the interval depends on the cost of one.
const FIRST: Duration = Duration::from_secs(30);
/// A chosen interval is at least this many times the cost of a checkpoint.
const LEAST: u32 = 20;
/// How often a run's last checkpoint is tried again if it fails, and the pause before each try.
const TRIES: u32 = 5;
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// For what part of a run attempts that fail may stop the job, and what they may beyond that: short ones are tried again at once.
const LOST_PART: u32 = 100;
const LOST_FREELY: Duration = Duration::from_millis(250);

/// The action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A checkpoint as planned.
    Planned,
    /// The last of this run, and the action that follows it.
    Last(Action),
    /// There is too little time for the last of this run: the time left, and the cost of the one before.
    TooLate(Duration, Duration),
}

/// The plan of one run of a job, from its launch or restart to its end.
#[derive(Debug)]
pub struct Schedule {
    interval: Option<Interval>,
    mtbf: Duration,
    /// What the last checkpoint cost, from its begin to the durable image.
    cost: Option<Duration>,
    /// When the run began, and for how long checkpoints that failed have stopped the job since.
    run: Instant,
    lost: Duration,
    /// When the last one began, and the earliest instant for the next.
    last: Instant,
    earliest: Instant,
    /// When the run stops by its own settings.
    stop: Option<Instant>,
    /// When the machine is taken away.
    end: Option<Instant>,
    /// How long before that the last checkpoint must be durable, and the action that follows it.
    before_end: Option<(Duration, Action)>,
    /// Failed tries of the last checkpoint, and the earliest instant of the next.
    failed: (u32, Instant),
    /// The last one is taken, or under way.
    is_done: bool,
}

impl Schedule {
    /// The plan of a run that begins now. `cost` is the duration of an earlier run's last checkpoint.
    #[must_use]
    pub fn new(settings: &Settings, cost: Option<Duration>, now: Instant) -> Self {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
        let after = |time: Option<f64>| time.and_then(seconds).and_then(|time| now.checked_add(time));
        let before_end = settings
            .before_end
            .as_ref()
            .and_then(|(time, action)| Some((seconds(*time)?, action.parse().unwrap_or(Action::Stop))));
        let mut plan = Self {
            interval: settings.interval,
            mtbf: seconds(settings.mtbf).unwrap_or(Duration::MAX),
            cost,
            run: now,
            lost: Duration::ZERO,
            last: now,
            earliest: now,
            stop: after(settings.stop_after),
            end: None,
            before_end,
            failed: (0, now),
            is_done: false,
        };
        if let Some(end) = after(settings.time_limit) {
            plan.set_end(end, now);
        }
        plan
    }

    /// Whether the plan depends on the end of the allocation, which is not known yet.
    #[must_use]
    pub fn wants_end(&self) -> bool {
        self.before_end.is_some() && self.end.is_none()
    }

    /// The machine is taken away at this instant. The user's time after the last checkpoint is cut to half of the time left: a run that
    /// stops as soon as it begins makes no progress.
    pub fn set_end(&mut self, end: Instant, now: Instant) -> Option<Duration> {
        self.end = Some(end);
        let half = end.saturating_duration_since(now) / 2;
        let (margin, _) = self.before_end.as_mut().filter(|(margin, _)| *margin > half)?;
        *margin = half;
        Some(half)
    }

    /// A cautious estimate of the next checkpoint's duration.
    fn likely(&self) -> Duration {
        self.cost.map_or(Duration::ZERO, |cost| cost + cost / 2 + Duration::from_secs(1))
    }

    /// Whether the next checkpoint is likely to be durable within this time.
    #[must_use]
    pub fn fits(&self, time: Duration) -> bool {
        self.likely() <= time
    }

    /// The time from the start of one checkpoint to the start of the next.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        Some(match (self.interval?, self.cost) {
            (Interval::Every(seconds), _) => Duration::try_from_secs_f64(seconds).ok()?,
            (Interval::Auto, Some(cost)) => optimum(cost, self.mtbf),
            (Interval::Auto, None) => FIRST.min(self.mtbf / 10),
        })
    }

    /// When the last checkpoint of the run begins, and the action that follows it.
    fn final_begin(&self) -> Option<(Instant, Action)> {
        let before_end = self.end.zip(self.before_end).map(|(end, (margin, action))| {
            // At once if less time than that is left.
            (end.checked_sub(margin.max(self.likely())).unwrap_or(self.last), action)
        });
        let stop = self.stop.map(|stop| (stop, Action::Stop));
        let first = before_end.into_iter().chain(stop).min_by_key(|(at, _)| *at);
        first.map(|(at, action)| (if self.failed.0 > 0 { at.max(self.failed.1) } else { at }, action))
    }

    /// When the next planned one begins, if it would be durable before the end and would not delay the last one.
    fn planned_begin(&self) -> Option<Instant> {
        let begin = self.last.checked_add(self.interval()?)?.max(self.earliest);
        let durable = begin + self.likely();
        let in_the_way = self.final_begin().is_some_and(|(last, _)| durable > last);
        (!in_the_way && self.end.is_none_or(|end| durable <= end)).then_some(begin)
    }

    /// The next instant at which something is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        if self.is_done {
            return None;
        }
        self.planned_begin().into_iter().chain(self.final_begin().map(|(at, _)| at)).min()
    }

    /// The action that is due. It counts as begun.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if self.is_done {
            return None;
        }
        if let Some((at, action)) = self.final_begin()
            && at <= now
        {
            self.is_done = true;
            let left = self.end.map(|end| end.saturating_duration_since(now));
            let too_late = left.zip(self.cost).filter(|(left, cost)| left < cost);
            return Some(too_late.map_or(Due::Last(action), |(left, cost)| Due::TooLate(left, cost)));
        }
        let planned = self.planned_begin()? <= now;
        planned.then(|| {
            self.begin(now);
            Due::Planned
        })
    }

    /// A checkpoint begins, planned or not.
    pub fn begin(&mut self, now: Instant) {
        self.last = now;
    }

    /// No planned one begins before that.
    pub fn pause(&mut self, until: Instant) {
        self.earliest = self.earliest.max(until);
    }

    /// A checkpoint is over. `cost` is its duration, unless it failed.
    pub fn conclude(&mut self, cost: Option<Duration>, now: Instant) {
        self.cost = cost.or(self.cost);
        // A pause always follows.
        self.earliest = self.interval().map_or(now, |interval| now + interval / 10);
    }

    /// A checkpoint that failed has stopped the job for this long. How long planned ones wait for that, where it is longer than the interval.
    pub fn lose(&mut self, stood: Duration, now: Instant) -> Option<Duration> {
        self.lost += stood;
        let until = self.run.checked_add(self.lost.saturating_sub(LOST_FREELY) * LOST_PART)?;
        self.pause(until);
        let wait = until.saturating_duration_since(now);
        self.interval().filter(|interval| wait > *interval).map(|_| wait)
    }

    /// The run's last checkpoint has failed. Gives the pause before the next try, or nothing after the last try: the run then goes on
    /// without a last checkpoint.
    pub fn last_failed(&mut self, now: Instant) -> Option<Duration> {
        let again = now + AGAIN_AFTER;
        if self.failed.0 == TRIES || self.end.is_some_and(|end| again + self.likely() > end) {
            (self.stop, self.before_end, self.is_done) = (None, None, false);
            return None;
        }
        self.failed = (self.failed.0 + 1, again);
        self.is_done = false;
        Some(AGAIN_AFTER)
    }
}

/// The interval that loses the least time to checkpoints and to failures, which come every `mtbf` on average: J. T. Daly, "A higher order estimate of
/// the optimum checkpoint interval for restart dumps" (2006), whose first term is J. W. Young's (1974), √(2·cost·mtbf).
fn optimum(cost: Duration, mtbf: Duration) -> Duration {
    let (c, m) = (cost.as_secs_f64(), mtbf.as_secs_f64());
    let ratio = c / (2.0 * m);
    let seconds = if ratio < 1.0 { (2.0 * c * m).sqrt() * (1.0 + ratio.sqrt() / 3.0 + ratio / 9.0) - c } else { m };
    Duration::try_from_secs_f64(seconds).unwrap_or(mtbf).max(cost * LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> Settings {
        Settings { mtbf: 86400.0, ..Settings::default() }
    }

    #[test]
    fn the_optimum_is_young_s_and_dalys() {
        // √(2·4·86400) = 831.4; Daly's terms add 1.3 and take the cost off.
        let best = optimum(4 * SECOND, Duration::from_secs(86400)).as_secs_f64();
        assert!((828.0..830.0).contains(&best), "{best}");
        assert_eq!(optimum(60 * SECOND, Duration::from_secs(600)), 1200 * SECOND, "never less than 20 times the cost");
        assert_eq!(optimum(Duration::ZERO, Duration::from_secs(600)), Duration::ZERO);
    }

    #[test]
    fn planned_ones_follow_each_other() {
        let now = Instant::now();
        let mut plan = Schedule::new(&Settings { interval: Some(Interval::Every(10.0)), ..settings() }, None, now);
        assert_eq!(plan.next(), Some(now + 10 * SECOND));
        assert_eq!((plan.due(now), plan.due(now + 10 * SECOND)), (None, Some(Due::Planned)));
        assert_eq!(plan.due(now + 10 * SECOND), None);
        plan.conclude(Some(2 * SECOND), now + 12 * SECOND);
        assert_eq!(plan.next(), Some(now + 20 * SECOND), "counted from begin to begin");
        plan.begin(now + 20 * SECOND);
        plan.conclude(Some(15 * SECOND), now + 35 * SECOND);
        assert_eq!(plan.next(), Some(now + 36 * SECOND), "with a pause in between");
    }

    #[test]
    fn auto_waits_for_a_first_cost() {
        let now = Instant::now();
        let mut plan = Schedule::new(&Settings { interval: Some(Interval::Auto), ..settings() }, None, now);
        assert_eq!(plan.next(), Some(now + FIRST));
        plan.begin(now + FIRST);
        plan.conclude(Some(4 * SECOND), now + FIRST + 4 * SECOND);
        assert!(plan.interval().is_some_and(|interval| interval > 800 * SECOND));
        let known = Schedule::new(&Settings { interval: Some(Interval::Auto), ..settings() }, Some(4 * SECOND), now);
        assert_eq!(known.interval(), plan.interval());
    }

    #[test]
    fn the_last_one_is_durable_before_the_end() {
        let now = Instant::now();
        let asked = Settings { interval: Some(Interval::Every(10.0)), before_end: Some((20.0, "requeue".into())), ..settings() };
        let mut plan = Schedule::new(&asked, None, now);
        assert!(plan.wants_end());
        assert_eq!(plan.set_end(now + 100 * SECOND, now), None);
        assert!(!plan.wants_end());
        assert_eq!(plan.final_begin(), Some((now + 80 * SECOND, Action::Requeue)));
        // The estimate for a checkpoint of 30 s is 46 s.
        plan.begin(now + 10 * SECOND);
        plan.conclude(Some(30 * SECOND), now + 40 * SECOND);
        assert_eq!(plan.final_begin(), Some((now + 54 * SECOND, Action::Requeue)));
        assert_eq!(plan.planned_begin(), None, "it would stand in the way");
        assert_eq!(plan.due(now + 53 * SECOND), None);
        assert_eq!(plan.due(now + 54 * SECOND), Some(Due::Last(Action::Requeue)));
        assert_eq!((plan.due(now + 55 * SECOND), plan.next()), (None, None));
    }

    #[test]
    fn a_run_that_is_short_is_not_all_margin() {
        let now = Instant::now();
        let asked = Settings { before_end: Some((90.0, "requeue".into())), ..settings() };
        let mut plan = Schedule::new(&asked, None, now);
        assert_eq!(plan.set_end(now + 60 * SECOND, now), Some(30 * SECOND));
        assert_eq!(plan.next(), Some(now + 30 * SECOND));
        let mut limited = Schedule::new(&Settings { time_limit: Some(60.0), ..asked }, None, now);
        assert_eq!((limited.next(), limited.wants_end()), (plan.next(), false));
        assert_eq!(limited.due(now + 30 * SECOND), Some(Due::Last(Action::Requeue)));
    }

    #[test]
    fn none_is_begun_that_cannot_end() {
        let now = Instant::now();
        let asked = Settings { interval: Some(Interval::Every(10.0)), before_end: Some((20.0, "stop".into())), ..settings() };
        let mut plan = Schedule::new(&asked, Some(300 * SECOND), now);
        plan.set_end(now + 60 * SECOND, now);
        assert_eq!(plan.due(now), Some(Due::TooLate(60 * SECOND, 300 * SECOND)));
        assert_eq!((plan.due(now + 10 * SECOND), plan.next()), (None, None));
    }

    #[test]
    fn a_last_one_that_fails_is_tried_again_while_there_is_time() {
        let now = Instant::now();
        let asked = Settings { before_end: Some((20.0, "stop".into())), time_limit: Some(40.0), ..settings() };
        let mut plan = Schedule::new(&asked, None, now);
        assert_eq!(plan.due(now + 20 * SECOND), Some(Due::Last(Action::Stop)));
        assert_eq!(plan.last_failed(now + 21 * SECOND), Some(AGAIN_AFTER));
        assert_eq!((plan.due(now + 22 * SECOND), plan.next()), (None, Some(now + 26 * SECOND)));
        assert_eq!(plan.due(now + 26 * SECOND), Some(Due::Last(Action::Stop)));
        assert_eq!(plan.last_failed(now + 36 * SECOND), None, "it could not be durable any more");
    }

    #[test]
    fn a_run_that_could_not_stop_goes_on_with_planned_ones() {
        let now = Instant::now();
        let asked = Settings { interval: Some(Interval::Every(100.0)), stop_after: Some(10.0), ..settings() };
        let mut plan = Schedule::new(&asked, None, now);
        let mut at = now + 10 * SECOND;
        for try_ in 0..=TRIES {
            assert_eq!(plan.due(at), Some(Due::Last(Action::Stop)));
            plan.begin(at);
            plan.conclude(None, at);
            assert_eq!(plan.last_failed(at).is_some(), try_ < TRIES);
            at += AGAIN_AFTER;
        }
        let last = at - AGAIN_AFTER;
        assert_eq!((plan.due(at), plan.next()), (None, Some(last + 100 * SECOND)));
        assert_eq!(plan.due(last + 100 * SECOND), Some(Due::Planned));
    }

    #[test]
    fn attempts_that_fail_stop_the_job_for_a_hundredth_of_the_run() {
        let now = Instant::now();
        let mut plan = Schedule::new(&Settings { interval: Some(Interval::Every(1.0)), ..settings() }, None, now);
        let (mut at, mut lost) = (now, Duration::ZERO);
        for _ in 0..20 {
            at = plan.next().unwrap();
            assert_eq!(plan.due(at), Some(Due::Planned));
            assert!(lost <= (at - now) / LOST_PART + LOST_FREELY, "{lost:?} of {:?}", at - now);
            lost += SECOND;
            plan.conclude(None, at + SECOND);
            let wait = plan.lose(SECOND, at + SECOND);
            assert!(wait.is_some_and(|wait| wait > 50 * SECOND), "{wait:?}");
        }
        let mut plan = Schedule::new(&Settings { interval: Some(Interval::Every(1.0)), ..settings() }, None, at);
        plan.begin(at + SECOND);
        plan.conclude(None, at + SECOND);
        assert_eq!(plan.lose(SECOND / 50, at + SECOND), None);
        assert_eq!(plan.next(), Some(at + 2 * SECOND), "a short one is tried again as planned");
    }

    #[test]
    fn a_run_stops_after_its_time() {
        let now = Instant::now();
        let mut plan = Schedule::new(&Settings { stop_after: Some(5.0), ..settings() }, None, now);
        assert_eq!((plan.next(), plan.due(now + 4 * SECOND)), (Some(now + 5 * SECOND), None));
        assert_eq!(plan.due(now + 5 * SECOND), Some(Due::Last(Action::Stop)));
    }
}
