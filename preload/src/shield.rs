//! Where a shielded signal would have its default action, the agent's shield is installed (`ckpt_agent`'s `shield`), and before handlers of the program's own a
//! stub (`wrapped` there). The program does not see them: one that asks is told `SIG_DFL` or its own handler, and one that sets `SIG_DFL` gets the shield
//! again. `SIG_IGN` is really set, and so are handlers that the kernel is to take away when they run (`SA_RESETHAND`).

use core::ffi::c_int;

use ckpt_agent::{CONFIG, Handler, is_shield, on_shielded_signal, stub_for, wrapped};
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;

use crate::environment::Action;
use crate::libc;
use crate::signals::{SigAction, SigSet};

/// `SIG_DFL`.
pub const DEFAULT: usize = 0;
const IGNORE: u64 = 1;
const SA_SIGINFO: u64 = 4;
const SA_RESETHAND: u64 = 0x8000_0000;

/// The kernel's `struct sigaction`: handler, flags, restorer, mask.
type KernelAction = [u64; 4];

/// What the shield is installed with.
static SHIELD: Action = Action::new();

/// Installs the shield for every shielded signal that has its default action.
///
/// # Safety
/// The agent must be configured.
pub unsafe fn install_all(flags: u64, restorer: u64) {
    SHIELD.set(handler(), flags, restorer);
    for signal in shielded() {
        // Most have the default action, so that is not asked for first. A signal that comes meanwhile was to be ignored.
        if let Some(before @ [IGNORE | 2.., ..]) = install(signal) {
            // SAFETY: the action is what the kernel gave.
            let _ = unsafe { syscall!(nr::__NR_rt_sigaction, signal, before.as_ptr(), 0, 8) };
            renew(signal);
        }
    }
}

/// Installs the shield where it already is, without an alternate stack: see [`crate::environment::leave_small_stacks`].
pub fn leave_alternate_stack(flag: u64) {
    SHIELD.clear_flag(flag);
    shielded().for_each(renew);
}

/// Installs the shield again where it is, or where nothing is, and a stub before a handler that has none.
pub fn renew(signal: c_int) {
    let mut now: KernelAction = [0; 4];
    // SAFETY: with no new action, the old one is written to `now`.
    let asked = unsafe { syscall!(nr::__NR_rt_sigaction, signal, 0, now.as_mut_ptr(), 8) };
    if asked.is_ok() && (now[0] == DEFAULT as u64 || is_shield(now[0])) {
        install(signal);
    } else if let [handler, flags, restorer, mask] = now
        && let Some(stub) = before_handler(Handler { address: handler, flags, mask })
    {
        let action: KernelAction = [stub, flags | SA_SIGINFO, restorer, u64::MAX];
        // SAFETY: the action is the one that was there, but for the stub, which has the signature that SA_SIGINFO asks for.
        let _ = unsafe { syscall!(nr::__NR_rt_sigaction, signal, action.as_ptr(), 0, 8) };
    }
}

/// The stub to be installed in the place of a handler; `None` where none is to be.
fn before_handler(handler: Handler) -> Option<u64> {
    let is_own = handler.address > IGNORE && !is_shield(handler.address) && wrapped(handler.address).is_none();
    if is_own && handler.flags & SA_RESETHAND == 0 { stub_for(handler) } else { None }
}

/// Has a stub called before the program's handler.
pub fn wrap(action: &mut SigAction) {
    let flags = u64::from(action.flags.cast_unsigned());
    if let Some(stub) = before_handler(Handler { address: action.handler as u64, flags, mask: action.mask.0[0] }) {
        action.handler = stub as usize;
        action.flags |= SA_SIGINFO as c_int;
        action.mask.0[0] = u64::MAX;
    }
}

/// Installs the shield; gives the action before.
fn install(signal: c_int) -> Option<KernelAction> {
    let mut before: KernelAction = [0; 4];
    // SAFETY: the new action lives for ever; the handler has the signature that SA_SIGINFO asks for.
    let set = unsafe { syscall!(nr::__NR_rt_sigaction, signal, &raw const SHIELD, before.as_mut_ptr(), 8) };
    set.is_ok().then_some(before)
}

fn shielded() -> impl Iterator<Item = c_int> {
    (1..=64).filter(|&signal| covers(signal))
}

/// The shield, as a handler.
pub fn handler() -> u64 {
    on_shielded_signal as *const () as u64
}

/// Whether a signal is one of the shielded.
pub fn covers(signal: c_int) -> bool {
    (1..=64).contains(&signal) && CONFIG.get().shielded & 1 << (signal - 1) != 0
}

/// A handler as the program is to see it.
pub fn shown(handler: usize) -> usize {
    match wrapped(handler as u64) {
        Some(own) => own.address as usize,
        None if is_shield(handler as u64) => DEFAULT,
        None => handler,
    }
}

/// An action as the program is to see it.
pub fn shown_action(action: SigAction) -> SigAction {
    match wrapped(action.handler as u64) {
        Some(own) => {
            let mut mask = [0; 16];
            mask[0] = own.mask;
            let flags = if own.flags & SA_SIGINFO == 0 { action.flags & !(SA_SIGINFO as c_int) } else { action.flags };
            SigAction { handler: own.address as usize, mask: SigSet(mask), flags, ..action }
        }
        None if is_shield(action.handler as u64) => SigAction::DEFAULT,
        None => action,
    }
}

/// Sets the default action, which is the shield; gives the action before as the program is to see it, `None` with `errno` set.
pub fn set_default(signal: c_int) -> Option<SigAction> {
    match install(signal) {
        Some([handler, flags, restorer, mask]) => {
            let mut set = [0; 16];
            set[0] = mask;
            let before =
                SigAction { handler: handler as usize, mask: SigSet(set), flags: flags as c_int, restorer: restorer as usize };
            Some(shown_action(before))
        }
        None => {
            libc::fail(libc::EINVAL);
            None
        }
    }
}
