//! The calls that could block the checkpoint signal, consume it, or take its handler away. To the program the signal looks as if it were
//! free, and as if nobody sent it. And those that could take the shield away, or show it.

use core::ffi::{c_int, c_void};

use ckpt_agent::{CONFIG, believe, believed_action};
use ckpt_sys::signal_set::SignalSet;
use linux_raw_sys::general as nr;

use crate::action::{DEFAULT, SigAction, SigSet};
use crate::environment::{self, after_action, before_action};
use crate::libc::{self, ENOSYS};
use crate::next;
use crate::shield;

fn is_ours(signal: c_int) -> bool {
    signal != 0 && signal == CONFIG.get().signal
}

/// The set without the checkpoint signal.
///
/// # Safety
/// `set` must be null or readable.
unsafe fn without_ours(set: *const SigSet) -> Option<SigSet> {
    if set.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let mut own = unsafe { *set };
    own.0[0] &= !SignalSet::of(CONFIG.get().signal).bits();
    Some(own)
}

/// A pointer to the set, or null.
fn pointer(set: &Option<SigSet>) -> *const SigSet {
    set.as_ref().map_or(core::ptr::null(), core::ptr::from_ref)
}

/// sigaction(2).
///
/// # Safety
/// As for the C function; so for all below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(signal: c_int, action: *const SigAction, old: *mut SigAction) -> c_int {
    if is_ours(signal) {
        // SAFETY: the caller's promise.
        unsafe {
            let before = if action.is_null() { believed_action() } else { believe((*action).to_kernel()) };
            if !old.is_null() {
                *old = SigAction::of_kernel(before);
            }
        }
        return 0;
    }
    type Call = unsafe extern "C" fn(c_int, *const SigAction, *mut SigAction) -> c_int;
    let Some(call) = next!(c"sigaction" as Call) else { return libc::fail(ENOSYS) };
    // SAFETY: the caller's promise.
    unsafe {
        if shield::covers(signal) && !action.is_null() && (*action).handler == DEFAULT {
            before_action(signal, shield::handler());
            let Some(before) = shield::set_default(signal) else { return -1 };
            if !old.is_null() {
                *old = before;
            }
            return 0;
        }
        let result = if action.is_null() {
            call(signal, action, old)
        } else {
            let mut own = *action;
            own.mask = without_ours(&raw const (*action).mask).unwrap_or(own.mask);
            before_action(signal, own.handler as u64);
            if shield::covers(signal) {
                shield::wrap(&mut own);
            }
            let result = call(signal, &raw const own, old);
            if result == 0 {
                after_action(signal, own.handler as u64);
            }
            result
        };
        if result == 0 && !old.is_null() && shield::covers(signal) {
            *old = shield::shown_action(*old);
        }
        result
    }
}

type Handler = usize;
/// `SIG_ERR`.
const SIG_ERR: Handler = usize::MAX;
type SignalCall = unsafe extern "C" fn(c_int, Handler) -> Handler;

/// signal(2).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn signal(signal: c_int, handler: Handler) -> Handler {
    let next = next!(c"signal" as SignalCall);
    // SAFETY: the caller's promise.
    unsafe { set_simply(signal, handler, next) }
}

/// sysv_signal(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysv_signal(signal: c_int, handler: Handler) -> Handler {
    let next = next!(c"sysv_signal" as SignalCall);
    // SAFETY: the caller's promise.
    unsafe { set_simply(signal, handler, next) }
}

/// Sets the program's own handler for our signal, as signal(3) does; gives the one before.
fn believe_simply(handler: Handler) -> Handler {
    let [before, ..] = believe([handler as u64, nr::SA_RESTART.into(), 0, 0]);
    before as usize
}

/// Sets a handler by a call that takes nothing else.
///
/// # Safety
/// As for the C functions.
unsafe fn set_simply(signal: c_int, handler: Handler, call: Option<SignalCall>) -> Handler {
    if is_ours(signal) {
        return believe_simply(handler);
    }
    if shield::covers(signal) && handler == DEFAULT {
        before_action(signal, shield::handler());
        return shield::set_default(signal).map_or(SIG_ERR, |before| before.handler);
    }
    let Some(call) = call else { return libc::fail(ENOSYS) as usize };
    before_action(signal, handler as u64);
    // SAFETY: the caller's promise.
    let before = unsafe { call(signal, handler) };
    if shield::covers(signal) {
        shield::renew(signal);
    }
    if before != SIG_ERR {
        after_action(signal, handler as u64);
    }
    shield::shown(before)
}

/// sigset(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigset(signal: c_int, handler: Handler) -> Handler {
    if is_ours(signal) {
        return believe_simply(handler);
    }
    let Some(call) = next!(c"sigset" as SignalCall) else { return libc::fail(ENOSYS) as usize };
    before_action(signal, handler as u64);
    // SAFETY: the caller's promise.
    let before = unsafe { call(signal, handler) };
    // It may have set the default action, beside letting the signal in, or a handler.
    if shield::covers(signal) {
        shield::renew(signal);
    }
    shield::shown(before)
}

/// siginterrupt(3): it gives the action that is there another flag.
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siginterrupt(signal: c_int, interrupts: c_int) -> c_int {
    type Call = unsafe extern "C" fn(c_int, c_int) -> c_int;
    let Some(call) = next!(c"siginterrupt" as Call) else { return libc::fail(ENOSYS) };
    // SAFETY: the caller's promise.
    let result = unsafe { call(signal, interrupts) };
    if shield::covers(signal) {
        shield::renew(signal);
    }
    result
}

/// `stack_t`.
#[repr(C)]
pub struct AlternateStack {
    base: *mut c_void,
    flags: c_int,
    size: usize,
}

/// sigaltstack(2).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaltstack(stack: *const AlternateStack, old: *mut AlternateStack) -> c_int {
    type Call = unsafe extern "C" fn(*const AlternateStack, *mut AlternateStack) -> c_int;
    let Some(call) = next!(c"sigaltstack" as Call) else { return libc::fail(ENOSYS) };
    // SAFETY: the caller's promise.
    unsafe {
        if !stack.is_null() && (*stack).flags & nr::SS_DISABLE as c_int == 0 {
            environment::leave_small_stacks((*stack).size);
        }
        call(stack, old)
    }
}

/// Functions that only need one signal less in a set: the checkpoint signal is taken out, and the next definition called.
macro_rules! without_signal {
    ($($(#[$doc:meta])* $name:ident, $symbol:literal: ($($before:ident: $before_type:ty,)* [$set:ident] $(, $after:ident: $after_type:ty)*) -> $ret:ty = $missing:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for the C function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($before: $before_type,)* $set: *const SigSet $(, $after: $after_type)*) -> $ret {
            type Call = unsafe extern "C" fn($($before_type,)* *const SigSet $(, $after_type)*) -> $ret;
            let Some(call) = next!($symbol as Call) else { return $missing };
            // SAFETY: the caller's promise.
            unsafe {
                let own = without_ours($set);
                call($($before,)* pointer(&own) $(, $after)*)
            }
        }
    )*};
}

without_signal! {
    /// sigprocmask(2).
    sigprocmask, c"sigprocmask": (how: c_int, [set], old: *mut SigSet) -> c_int = libc::fail(ENOSYS);
    /// pthread_sigmask(3).
    pthread_sigmask, c"pthread_sigmask": (how: c_int, [set], old: *mut SigSet) -> c_int = ENOSYS;
    /// sigsuspend(2).
    sigsuspend, c"sigsuspend": ([set]) -> c_int = libc::fail(ENOSYS);
    /// sigwait(3).
    sigwait, c"sigwait": ([set], signal: *mut c_int) -> c_int = ENOSYS;
    /// sigwaitinfo(2).
    sigwaitinfo, c"sigwaitinfo": ([set], info: *mut c_void) -> c_int = libc::fail(ENOSYS);
    /// sigtimedwait(2).
    sigtimedwait, c"sigtimedwait": ([set], info: *mut c_void, timeout: *const c_void) -> c_int = libc::fail(ENOSYS);
    /// signalfd(2).
    signalfd, c"signalfd": (fd: c_int, [set], flags: c_int) -> c_int = libc::fail(ENOSYS);
    /// ppoll(2).
    ppoll, c"ppoll": (fds: *mut c_void, count: u64, timeout: *const c_void, [set]) -> c_int = libc::fail(ENOSYS);
    /// ppoll(2), as programs built with checks call it.
    __ppoll_chk, c"__ppoll_chk": (fds: *mut c_void, count: u64, timeout: *const c_void, [set], size: usize) -> c_int = libc::fail(ENOSYS);
    /// pselect(2).
    pselect, c"pselect": (count: c_int, read: *mut c_void, write: *mut c_void, except: *mut c_void, timeout: *const c_void, [set]) -> c_int = libc::fail(ENOSYS);
    /// epoll_pwait(2).
    epoll_pwait, c"epoll_pwait": (fd: c_int, events: *mut c_void, count: c_int, timeout: c_int, [set]) -> c_int = libc::fail(ENOSYS);
    /// epoll_pwait2(2).
    epoll_pwait2, c"epoll_pwait2": (fd: c_int, events: *mut c_void, count: c_int, timeout: *const c_void, [set]) -> c_int = libc::fail(ENOSYS);
    /// pthread_attr_setsigmask_np(3).
    pthread_attr_setsigmask_np, c"pthread_attr_setsigmask_np": (attributes: *mut c_void, [set]) -> c_int = ENOSYS;
}
