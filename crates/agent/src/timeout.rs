//! Time-outs of system calls that are made again with less time than before.
//!
//! The program's own `timespec` must not be changed (it may be a constant that is used again), so the call is given one of these slots.
//! The kernel copies it when the call begins.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicI32, AtomicU64};

use ckpt_sys::sigframe::SigContext;
use linux_raw_sys::general as nr;

/// A time-out of one thread.
#[repr(C)]
struct Slot {
    /// The thread that uses it.
    owner: AtomicI32,
    /// `tv_sec`.
    seconds: AtomicU64,
    /// `tv_nsec`.
    nanoseconds: AtomicU64,
}

/// How many threads can have such a time-out at once before they must share.
const SLOTS: usize = 512;

static TIMEOUTS: [Slot; SLOTS] =
    [const { Slot { owner: AtomicI32::new(0), seconds: AtomicU64::new(0), nanoseconds: AtomicU64::new(0) } }; SLOTS];

/// Takes the time that has passed off a relative time-out.
///
/// # Safety
/// `context` must hold the arguments of an interrupted call `number`.
pub unsafe fn shorten(context: &mut SigContext, number: u32, elapsed_ns: u64, tid: i32) {
    match number {
        nr::__NR_poll => context.rdx = fewer_ms(context.rdx, elapsed_ns),
        nr::__NR_epoll_wait | nr::__NR_epoll_pwait => context.r10 = fewer_ms(context.r10, elapsed_ns),
        // The kernel has written the time that is left to the second argument where there is one.
        nr::__NR_nanosleep if context.rsi != 0 => context.rdi = context.rsi,
        // SAFETY: the first argument is the time-out.
        nr::__NR_nanosleep => context.rdi = unsafe { fewer(context.rdi, elapsed_ns, tid) },
        nr::__NR_clock_nanosleep if context.rsi & u64::from(nr::TIMER_ABSTIME) != 0 => (),
        nr::__NR_clock_nanosleep if context.r10 != 0 => context.rdx = context.r10,
        // SAFETY: the third argument is the time-out.
        nr::__NR_clock_nanosleep => context.rdx = unsafe { fewer(context.rdx, elapsed_ns, tid) },
        // Only FUTEX_WAIT takes a relative time-out; the low bits are the command.
        nr::__NR_futex if context.rsi & 0x7f != u64::from(nr::FUTEX_WAIT) => (),
        nr::__NR_futex | nr::__NR_epoll_pwait2 | nr::__NR_semtimedop => {
            // SAFETY: the fourth argument is the time-out.
            context.r10 = unsafe { fewer(context.r10, elapsed_ns, tid) };
        }
        // SAFETY: the third argument is the time-out.
        nr::__NR_rt_sigtimedwait => context.rdx = unsafe { fewer(context.rdx, elapsed_ns, tid) },
        // SAFETY: the fifth argument is the time-out.
        nr::__NR_io_getevents | nr::__NR_io_pgetevents => context.r8 = unsafe { fewer(context.r8, elapsed_ns, tid) },
        _ => (),
    }
}

/// Milliseconds, less the time that has passed; negative (without end) and zero stay.
fn fewer_ms(timeout: u64, elapsed_ns: u64) -> u64 {
    let timeout = timeout as i32;
    if timeout <= 0 {
        return u64::from(timeout as u32);
    }
    u64::from(timeout as u32).saturating_sub(elapsed_ns / 1_000_000)
}

/// The address of a `timespec` with the time that is left of the one at `timeout`; 0 (none) stays.
///
/// # Safety
/// `timeout` must be 0 or the address of a readable `timespec`.
unsafe fn fewer(timeout: u64, elapsed_ns: u64, tid: i32) -> u64 {
    if timeout == 0 || elapsed_ns == 0 {
        return timeout;
    }
    // SAFETY: the caller's promise.
    let time = unsafe { core::ptr::read_unaligned(timeout as *const nr::__kernel_timespec) };
    let left = (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64).saturating_sub(elapsed_ns);
    let slot = slot_of(tid);
    slot.seconds.store(left / 1_000_000_000, Relaxed);
    slot.nanoseconds.store(left % 1_000_000_000, Relaxed);
    slot.seconds.as_ptr() as u64
}

/// The slot of a thread.
fn slot_of(tid: i32) -> &'static Slot {
    let first = tid as usize % SLOTS;
    let own = (0..8)
        .map(|i| &TIMEOUTS[(first + i) % SLOTS])
        .find(|slot| slot.owner.load(Relaxed) == tid || slot.owner.compare_exchange(0, tid, AcqRel, Acquire).is_ok());
    // Eight threads, which may have ended long ago, have these slots already: one is taken from them.
    let slot = own.unwrap_or(&TIMEOUTS[first]);
    slot.owner.store(tid, Relaxed);
    slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_run_down_to_zero_and_endless_waits_stay() {
        assert_eq!(fewer_ms(100, 30_000_000), 70);
        assert_eq!(fewer_ms(100, u64::MAX), 0);
        let endless = u64::from((-1i32).cast_unsigned());
        assert_eq!((fewer_ms(endless, 5), fewer_ms(0, 5)), (endless, 0));
    }

    #[test]
    fn the_programs_own_time_stays_as_it_is() {
        let time = nr::__kernel_timespec { tv_sec: 2, tv_nsec: 5 };
        let address = &raw const time as u64;
        let shortened = |elapsed_ns: u64| {
            let mut context = SigContext { rdi: address, ..SigContext::default() };
            // SAFETY: the first argument is a time.
            unsafe { shorten(&mut context, nr::__NR_nanosleep, elapsed_ns, 7) };
            // SAFETY: the register holds that address, or that of a slot.
            unsafe { *(context.rdi as *const nr::__kernel_timespec) }
        };
        let left = shortened(1_000_000_000);
        assert_eq!((left.tv_sec, left.tv_nsec, time.tv_sec), (1, 5, 2));
        assert_eq!(shortened(0).tv_sec, 2);
        assert_eq!(shortened(u64::MAX).tv_nsec, 0);
    }

    #[test]
    fn absolute_times_and_the_kernels_own_rest_are_kept() {
        let absolute = SigContext { rsi: nr::TIMER_ABSTIME.into(), rdx: 1, ..SigContext::default() };
        let rest = SigContext { rdx: 1, r10: 2, ..SigContext::default() };
        for (mut context, rdx) in [(absolute, 1), (rest, 2)] {
            // SAFETY: neither looks at the time.
            unsafe { shorten(&mut context, nr::__NR_clock_nanosleep, 9, 7) };
            assert_eq!(context.rdx, rdx);
        }
    }
}
