//! The agent's shield (`ckpt_agent`'s `shield`) is installed where a shielded signal would have its default action, and a stub (`stubs` there) before each
//! handler of the program's own. The program does not see them: it reads `SIG_DFL` or its own handler, and when it sets `SIG_DFL` it gets the shield again.
//! `SIG_IGN` is really set, and so are handlers that the kernel takes away when they run (`SA_RESETHAND`).

use core::ffi::c_int;

use ckpt_agent::{CONFIG, Handler, is_shield, on_shielded_signal, stub_for, wrapped};
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;

use crate::action::{Action, DEFAULT, KernelAction, SigAction};
use crate::libc;

/// `SIG_IGN`.
const IGNORE: u64 = 1;
const SA_SIGINFO: u64 = nr::SA_SIGINFO as u64;
const SA_ONSTACK: u64 = nr::SA_ONSTACK as u64;
const SA_RESETHAND: u64 = nr::SA_RESETHAND as u64;

/// The action that installs the shield.
static SHIELD: Action = Action::new();

/// Installs the shield for every shielded signal that has its default action.
///
/// # Safety
/// The agent must be configured.
pub unsafe fn install_all(flags: u64, restorer: u64) {
    SHIELD.set(handler(), flags, restorer);
    for signal in CONFIG.get().shielded {
        // Most have the default action, so that is not asked for first. A signal that comes meanwhile was to be ignored.
        if let Some(before @ [IGNORE | 2.., ..]) = install(signal) {
            // SAFETY: the kernel gave this action.
            let _ = unsafe { syscall!(nr::__NR_rt_sigaction, signal, before.as_ptr(), 0, 8) };
            renew(signal);
        }
    }
}

/// From now on the shield does without alternate stacks: see `environment::leave_small_stacks`. A stub does what the program's handler does, so
/// one before a handler that runs on such a stack is taken away.
pub fn leave_alternate_stack() {
    SHIELD.clear_flag(nr::SA_ONSTACK);
    CONFIG.get().shielded.iter().for_each(renew);
}

/// Installs what belongs to the action that the program has set for a signal: the shield in the place of the default, a stub before a handler, or neither.
pub fn renew(signal: c_int) {
    let mut now: KernelAction = [0; 4];
    // SAFETY: with no new action, the old one is written to `now`.
    let asked = unsafe { syscall!(nr::__NR_rt_sigaction, signal, 0, now.as_mut_ptr(), 8) };
    if asked.is_err() {
        return;
    }
    let own = without_stub(now);
    if own[0] == DEFAULT as u64 || is_shield(own[0]) {
        install(signal);
        return;
    }
    let wanted = with_stub(own).unwrap_or(own);
    if wanted != now {
        // SAFETY: the action is the program's, but for the stub, which has the signature that SA_SIGINFO asks for.
        let _ = unsafe { syscall!(nr::__NR_rt_sigaction, signal, wanted.as_ptr(), 0, 8) };
    }
}

/// An action with a stub before the program's handler; `None` where there is to be none: it would be taken away by the kernel, or want too much of a small
/// alternate stack.
fn with_stub([address, flags, restorer, mask]: KernelAction) -> Option<KernelAction> {
    let has_room = flags & SA_ONSTACK == 0 || SHIELD.has_flag(nr::SA_ONSTACK);
    let is_own = address > IGNORE && !is_shield(address);
    if !is_own || !has_room || flags & SA_RESETHAND != 0 {
        return None;
    }
    Some([stub_for(Handler { address, flags, mask })?, flags | SA_SIGINFO, restorer, u64::MAX])
}

/// An action as the program has set it.
fn without_stub(action: KernelAction) -> KernelAction {
    let [handler, flags, restorer, _] = action;
    match wrapped(handler) {
        Some(own) => [own.address, flags & !SA_SIGINFO | own.flags & SA_SIGINFO, restorer, own.mask],
        None => action,
    }
}

/// Has a stub called before the program's handler.
pub fn wrap(action: &mut SigAction) {
    if let Some(wrapped) = with_stub(action.to_kernel()) {
        *action = SigAction::of_kernel(wrapped);
    }
}

/// Installs the shield; gives the action before.
fn install(signal: c_int) -> Option<KernelAction> {
    let mut before: KernelAction = [0; 4];
    // SAFETY: the new action lives for ever; the handler has the signature that SA_SIGINFO asks for.
    let set = unsafe { syscall!(nr::__NR_rt_sigaction, signal, &raw const SHIELD, before.as_mut_ptr(), 8) };
    set.is_ok().then_some(before)
}

/// The shield, as a handler.
pub fn handler() -> u64 {
    on_shielded_signal as *const () as u64
}

/// Whether a signal is one of the shielded.
pub fn covers(signal: c_int) -> bool {
    CONFIG.get().shielded.contains(signal)
}

/// A handler as the program is to see it.
pub fn shown(handler: usize) -> usize {
    shown_action(SigAction { handler, ..SigAction::DEFAULT }).handler
}

/// An action as the program is to see it.
pub fn shown_action(action: SigAction) -> SigAction {
    if is_shield(action.handler as u64) {
        SigAction::DEFAULT
    } else if wrapped(action.handler as u64).is_some() {
        SigAction::of_kernel(without_stub(action.to_kernel()))
    } else {
        action
    }
}

/// Sets the default action, which is the shield; gives the action before as the program is to see it, `None` with `errno` set.
pub fn set_default(signal: c_int) -> Option<SigAction> {
    let before = install(signal);
    if before.is_none() {
        libc::fail(libc::EINVAL);
    }
    before.map(|before| shown_action(SigAction::of_kernel(before)))
}
