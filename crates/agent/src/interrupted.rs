//! System calls that the checkpoint signal interrupted: they are made again, with the time that is left.
//!
//! Our handler has `SA_RESTART`, so the kernel itself repeats most calls. Those that it ends with `EINTR` all the same
//! (signal(7): `poll`, `select`, `epoll_wait`, `nanosleep`, `sigtimedwait` and their like) are put back to the `syscall`
//! instruction in the thread's frame. Which call it was is known from `/proc/PID/task/TID/syscall`, read before the signal was
//! sent. A call that has transferred something ends there, and [`transfer`] makes the rest of it.
//!
//! A call with a relative time-out must then be given less: otherwise a job that is checkpointed every second would sleep for
//! ever. The scheduler's note of when the thread last ran (`se.exec_start` in `/proc/PID/task/TID/sched`) tells how long it has slept.

use ckpt_sys::blocked;
use ckpt_sys::sigframe::{SigContext, UContext};
use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::syscall;
use ckpt_wire::BlockedCall;
use linux_raw_sys::general as nr;

use crate::blocking::{ends_for_any_signal, ends_without_restart, may_be_restarted, may_wait};
use crate::call::nr_errno::EINTR;
use crate::state::CONFIG;
use crate::{action, call, code, procfs, ready, timeout, transfer};

/// Words of a processor mask: the kernel's limit is 8192 processors.
const CPU_WORDS: usize = 128;
/// The `rax` of a call that a signal has ended.
const INTERRUPTED: u64 = -(EINTR as i64) as u64;

/// A mark in `reserved[0]` of a frame: the call was put back. The registers that [`timeout::shorten`] may change follow, as they were.
/// The kernel neither writes nor reads these words, and they are in the image with the frame: a thread that is restored may have
/// to undo it too.
const PUT_BACK: u64 = u64::from_be_bytes(*b"put back");
/// The same: the kernel makes the call again, because our handler has `SA_RESTART`.
const RESTARTED: u64 = u64::from_be_bytes(*b"restarts");
/// The same: a transfer that was cut short goes on.
const GONE_ON: u64 = u64::from_be_bytes(*b"goes on ");

/// The call that a thread of this process is blocked in right now; `notes` says whether the scheduler's notes may be used.
pub fn blocked_call(tid: i32, notes: bool) -> BlockedCall {
    let mut buffer = [0u8; 256];
    let Some(found) = procfs::read_task(tid, b"/syscall", &mut buffer).and_then(blocked::parse_syscall) else {
        return BlockedCall::default();
    };
    let mut call = BlockedCall { valid: 1, number: found.number, sp: found.sp, pc: found.pc, since_ns: 0, cpu: 0 };
    if notes && blocked::has_relative_timeout(found.number) {
        let mut buffer = [0u8; 512];
        call.since_ns = procfs::read_task(tid, b"/sched", &mut buffer).and_then(blocked::parse_last_ran).unwrap_or(0);
        call.cpu = procfs::read_task(tid, b"/stat", &mut buffer).and_then(blocked::parse_processor).unwrap_or(0);
    }
    call
}

/// For how long a thread was blocked, in nanoseconds; 0 where the kernel does not tell.
///
/// The scheduler's clock is read where the thread began to wait: the caller goes to that processor for a moment. Its note of when
/// it last ran is as old as its last tick; giving the processor away renews it.
fn elapsed_ns(call: &BlockedCall, tid: i32) -> u64 {
    let Ok(cpu) = usize::try_from(call.cpu) else { return 0 };
    let mut there = [0u64; CPU_WORDS];
    match there.get_mut(cpu / 64) {
        Some(word) if call.since_ns != 0 => *word = 1 << (cpu % 64),
        _ => return 0,
    }
    let mut before = [0u64; CPU_WORDS];
    // SAFETY: both masks have the size that is passed; the calls change nothing but where this thread runs.
    unsafe {
        let Ok(len) = syscall!(nr::__NR_sched_getaffinity, 0, size_of_val(&before), before.as_mut_ptr()) else { return 0 };
        if syscall!(nr::__NR_sched_setaffinity, 0, size_of_val(&there), there.as_ptr()).is_err() {
            return 0;
        }
        let _ = syscall!(nr::__NR_sched_yield);
        let mut buffer = [0u8; 512];
        let now = procfs::read_task(tid, b"/sched", &mut buffer).and_then(blocked::parse_last_ran);
        let _ = syscall!(nr::__NR_sched_setaffinity, 0, len, before.as_ptr());
        now.map_or(0, |now| now.saturating_sub(call.since_ns))
    }
}

/// Puts an interrupted call back so that it is made again.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn make_again(frame: *mut UContext, call: &BlockedCall, tid: i32) {
    // SAFETY: the caller's promise.
    unsafe { make_again_if(frame, call, tid, ends_for_any_signal) };
}

/// As [`make_again`]; where the number of the call must be read from the code, only numbers that are looked for are believed.
///
/// # Safety
/// As for [`make_again`].
unsafe fn make_again_if(frame: *mut UContext, call: &BlockedCall, tid: i32, is_looked_for: fn(u32) -> bool) {
    // SAFETY: the caller's promise.
    let context = unsafe { &mut (*frame).context };
    context.reserved[0] = 0;
    // SAFETY: as above: the registers are those that the thread goes on with.
    unsafe {
        if context.rax.cast_signed() > 0 && code::has_returned(context) {
            go_on(context, call);
        } else if context.rax == INTERRUPTED {
            put_back(context, call, tid, is_looked_for);
        } else if is_about_to_wait(context, call) {
            context.reserved[0] = RESTARTED;
        }
    }
}

/// Whether a thread was seen blocked in a call that returns to this address.
fn is_blocked_at(context: &SigContext, call: &BlockedCall, pc: u64) -> bool {
    call.valid == 1 && call.pc == pc && call.sp == context.rsp
}

/// Goes on with a transfer that was cut short.
///
/// # Safety
/// A call has just returned with these registers, which are those that the thread goes on with.
unsafe fn go_on(context: &mut SigContext, call: &BlockedCall) {
    let number = if is_blocked_at(context, call, context.rip) {
        Some(call.number)
    } else {
        number_of_past_call(context, transfer::may_be_cut_short)
    };
    // SAFETY: the caller's promise.
    if number.is_some_and(|number| unsafe { transfer::go_on(context, number) }) {
        context.reserved[0] = GONE_ON;
    }
}

/// Whether the kernel makes a call again that waits.
///
/// The registers are those of a thread that is about to make a call for the first time, too. That the signal came just before it is as
/// good, where the call may wait.
fn is_about_to_wait(context: &SigContext, call: &BlockedCall) -> bool {
    let after = context.rip.wrapping_add(code::SYSCALL_LEN);
    let is_it = || is_blocked_at(context, call, after) && context.rax == u64::from(call.number);
    may_be_restarted(context) && (is_it() || code::is_call_at(context.rip) && may_wait(context))
}

/// Puts a call back that ended with `EINTR`.
///
/// # Safety
/// The registers are those of a thread of this process that such a call has just returned to.
unsafe fn put_back(context: &mut SigContext, call: &BlockedCall, tid: i32, is_looked_for: fn(u32) -> bool) -> Option<()> {
    let (number, elapsed) = if is_blocked_at(context, call, context.rip) {
        let number = match call.number {
            // It was stopped, or held by a debugger, since it made the call: the registers hold the arguments, but not the number
            // any more.
            nr::__NR_restart_syscall => number_of_past_call(context, ends_for_any_signal)?,
            number => number,
        };
        (number, elapsed_ns(call, tid))
    } else {
        // The thread entered the call between the look and the signal: the number is in the code before.
        (number_of_past_call(context, is_looked_for)?, 0)
    };
    // The kernel leaves an interrupted close closed: to call again would be wrong. A connection being made is waited for by
    // calling again: only one that does not block would be told EALREADY, and that is never interrupted (inet_stream_connect,
    // net/ipv4/af_inet.c).
    if number == nr::__NR_close {
        return None;
    }
    let SigContext { rdi, rdx, r10, r8, .. } = *context;
    context.reserved[..5].copy_from_slice(&[PUT_BACK, rdi, rdx, r10, r8]);
    context.rip -= code::SYSCALL_LEN;
    context.rax = u64::from(number);
    // SAFETY: the arguments are those of an interrupted call of this thread: their pointers are valid or the call would have
    // failed.
    unsafe { timeout::shorten(context, number, elapsed, tid) };
    Some(())
}

/// For a thread that leaves the handler without having been frozen: a call that ended with `EINTR` is made again, if the code
/// tells which it was.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn leave_as_found(frame: *mut UContext) {
    // SAFETY: the caller's promise.
    unsafe { leave_as_found_by(frame, true) }
}

/// As [`leave_as_found`], for a handler that is installed with `SA_RESTART` or without it.
///
/// # Safety
/// As for [`leave_as_found`].
pub unsafe fn leave_as_found_by(frame: *mut UContext, restarts: bool) {
    let is_looked_for = if restarts { ends_for_any_signal } else { ends_without_restart };
    // SAFETY: the caller's promise.
    unsafe {
        make_again_if(frame, &BlockedCall::default(), call::gettid(), is_looked_for);
        end_if_signalled(frame);
    }
}

/// Has a call that the kernel is about to make again fail with `EINTR`, where a handler of the program's without `SA_RESTART` ends it.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn end_by_handler(frame: *mut UContext, restarts: bool) {
    // SAFETY: the caller's promise.
    let context = unsafe { &mut (*frame).context };
    context.reserved[0] = 0;
    if !restarts && is_about_to_wait(context, &BlockedCall::default()) {
        end(context);
    }
}

/// The number of the system call that has just returned, if it is one that is looked for.
fn number_of_past_call(context: &SigContext, is_looked_for: fn(u32) -> bool) -> Option<u32> {
    let in_transfer = transfer::number(context).filter(|number| is_looked_for(*number));
    in_transfer.or_else(|| code::number_before(context, is_looked_for))
}

/// Has a call that is about to be made again fail with `EINTR` when a signal of the job's own is pending that would have ended it. A
/// program that waits for that signal in `pause`, or in `read` with a handler that was installed without `SA_RESTART`, would wait
/// for ever otherwise. To be called again whenever a signal may have come.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn end_if_signalled(frame: *mut UContext) {
    // SAFETY: the caller's promise.
    let frame = unsafe { &mut *frame };
    let by_any_handler = match frame.context.reserved[0] {
        // Every handler cuts a transfer short.
        PUT_BACK | GONE_ON => true,
        RESTARTED => false,
        _ => return,
    };
    let mut pending = SignalSet::EMPTY;
    // SAFETY: `pending` is a signal set of 8 bytes.
    let _ = unsafe { syscall!(nr::__NR_rt_sigpending, pending.as_mut_ptr(), size_of::<SignalSet>()) };
    // Another checkpoint signal makes the call again too.
    let blocked = SignalSet::from_bits(frame.sigmask).with(CONFIG.get().signal);
    let is_ended = (pending - blocked).iter().any(|signal| action::ends_a_call(signal, by_any_handler));
    if is_ended && (frame.context.reserved[0] == GONE_ON || !ready::has_nobody_to_wait_for(&frame.context)) {
        end(&mut frame.context);
    }
}

/// Has a call that is about to be made again fail with `EINTR`.
fn end(context: &mut SigContext) {
    if context.reserved[0] == PUT_BACK {
        [_, context.rdi, context.rdx, context.r10, context.r8, ..] = context.reserved;
    }
    context.reserved[0] = 0;
    context.rip = context.rip.wrapping_add(code::SYSCALL_LEN);
    context.rax = INTERRUPTED;
}

/// The last step of a thread that is restored, before it goes on with its frame: its image may hold a call that is to be made
/// again, and a signal that ends it may have come in the meantime, such as a timer's.
///
/// # Safety
/// As for [`end_if_signalled`].
pub unsafe extern "C" fn on_leave(frame: *mut UContext) {
    // SAFETY: the caller's promise.
    unsafe {
        finish_connect(&mut (*frame).context);
        end_if_signalled(frame);
    }
}

/// Has a connect that is about to be made again succeed where the restart has connected the socket: another call would fail with `EISCONN`.
fn finish_connect(context: &mut SigContext) {
    let is_made_again = matches!(context.reserved[0], PUT_BACK | RESTARTED);
    if is_made_again && context.rax == u64::from(nr::__NR_connect) && ready::is_connected(context.rdi as i32) {
        context.reserved[0] = 0;
        context.rip = context.rip.wrapping_add(code::SYSCALL_LEN);
        context.rax = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a thread that waits in `call` and was interrupted.
    fn interrupted(call: &BlockedCall) -> UContext {
        let context = SigContext { rax: INTERRUPTED, rip: call.pc, rsp: call.sp, ..SigContext::default() };
        UContext { context, ..UContext::default() }
    }

    fn waits_in(number: u32) -> BlockedCall {
        BlockedCall { valid: 1, number, sp: 0x7000, pc: 0x5002, ..BlockedCall::default() }
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
        let call = waits_in(nr::__NR_pause);
        let mut frame = interrupted(&call);
        // SAFETY: nothing but the frame's registers is looked at.
        unsafe { make_again(&raw mut frame, &call, 1) };
        assert_eq!((frame.context.rip, frame.context.rax), (0x5000, nr::__NR_pause.into()));
        assert_eq!(frame.context.reserved[0], PUT_BACK);
    }

    #[test]
    fn an_interrupted_close_is_not_made_again() {
        let call = waits_in(nr::__NR_close);
        let mut frame = interrupted(&call);
        // SAFETY: as above.
        unsafe { make_again(&raw mut frame, &call, 1) };
        assert_eq!((frame.context.rip, frame.context.rax, frame.context.reserved[0]), (call.pc, INTERRUPTED, 0));
    }

    #[test]
    fn a_call_that_ends_after_all_has_the_registers_it_had() {
        let call = waits_in(nr::__NR_ppoll);
        let before = SigContext { rdi: 1, rdx: 2, r10: 3, r8: 4, ..interrupted(&call).context };
        let mut frame = UContext { context: before, ..UContext::default() };
        // SAFETY: as above.
        unsafe { make_again(&raw mut frame, &call, 1) };
        (frame.context.rdx, frame.context.r10) = (8, 9);
        end(&mut frame.context);
        let SigContext { rdi, rdx, r10, r8, rip, rax, .. } = frame.context;
        assert_eq!((rdi, rdx, r10, r8, rip, rax), (1, 2, 3, 4, call.pc, INTERRUPTED));
    }
}
