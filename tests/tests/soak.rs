//! Whatever is killed, and whenever: nothing that was complete is lost, nothing waits, nothing is left over.
//!
//! `cargo xtask soak MINUTES` sets `CKPT_SOAK_MINUTES`, and in `CKPT_SOAK_REPORT` the file that the outcomes are appended to.

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ckpt_tests::job::seed;
use ckpt_tests::soak::{Outcomes, Point, round, table};
use ckpt_tests::{Identity, as_either};

/// Rounds for each point, unless `CKPT_SOAK_MINUTES` says how long to go on.
const ROUNDS: u64 = 2;

as_either! { kills_at_random_moments }

fn kills_at_random_moments(identity: Identity) {
    let minutes = std::env::var("CKPT_SOAK_MINUTES").ok().and_then(|minutes| minutes.parse::<f64>().ok());
    let end = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes));
    let (seed, next) = (seed(), AtomicU64::new(0));
    let outcomes: Mutex<Outcomes> = Mutex::default();
    let points = Point::ALL.len() as u64;
    let go_on = |n: u64| end.map_or(n < ROUNDS * points, |end| Instant::now() < end);
    let rounds = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if !go_on(n) {
                return;
            }
            let point = Point::ALL[(n % points) as usize];
            let outcome = round(point, seed.wrapping_add(n), identity)
                .unwrap_or_else(|error| panic!("round {n}, CKPT_TEST_SEED={seed}, {point:?}: {error}"));
            *outcomes.lock().expect("no round panics with it").entry((point, outcome)).or_default() += 1;
        }
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(rounds);
        rounds();
        second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let outcomes = outcomes.into_inner().expect("no round panics with it");
    eprintln!("{}", table(&outcomes));
    if let Some(report) = std::env::var_os("CKPT_SOAK_REPORT") {
        let who = if identity == Identity::Root { "As root" } else { "As an ordinary user" };
        let mut file = File::options().create(true).append(true).open(report).expect("the report");
        write!(file, "{who}, CKPT_TEST_SEED={seed}:\n\n{}\n", table(&outcomes)).expect("the report");
    }
}
