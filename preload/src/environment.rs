//! The constructor: it reads the environment, installs the checkpoint signal's handler and the shield, and is done.

use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::Ordering::Relaxed;

use ckpt_agent::{
    CONFIG, Config, IGNORED_BY_DEFAULT, OWNER, change_mask, ignored, is_ignored, on_checkpoint_signal, on_shielded_signal,
    touched, wait_while_frozen,
};
use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::syscall;
use ckpt_wire::touched::ENV_TOUCHED;
use ckpt_wire::{
    DEFAULT_SIGNAL, ENV_AGENT, ENV_DIR, ENV_FILE, ENV_IO_URING, ENV_JOB, ENV_SECRET, ENV_SHIELD, ENV_SIGNAL, SHIELD_MARK,
    SHIELD_MARKS, Secret, parse_shield, parse_signal,
};
use linux_raw_sys::general as nr;

use crate::action::Action;
use crate::{by_number, libc, shield};

/// What the handlers are installed with.
const FLAGS: u64 = (nr::SA_SIGINFO | nr::SA_RESTORER | nr::SA_RESTART | nr::SA_ONSTACK) as u64;

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn(i32, *const *const c_char, *const *const c_char) = constructor;

/// Names of the variables that are kept.
const NAMES: [&str; 8] = [ENV_JOB, ENV_SECRET, ENV_DIR, ENV_SIGNAL, ENV_AGENT, ENV_SHIELD, ENV_FILE, ENV_IO_URING];

/// glibc passes the program's arguments; musl passes none, and `environ` is looked at.
extern "C" fn constructor(argc: i32, argv: *const *const c_char, envp: *const *const c_char) {
    let environ = libc::environ();
    let environment = if environ.is_null() { if argc > 0 && !argv.is_null() { envp } else { environ } } else { environ };
    // SAFETY: an environment is a list of C strings that ends with a null pointer.
    let Some(secret) = (unsafe { find(environment, ENV_SECRET) }).and_then(Secret::parse) else { return };
    // SAFETY: this is the constructor: no handler of ours is installed, and no thread has been started by the program.
    let config = unsafe { CONFIG.get_mut() };
    config.secret = secret;
    // SAFETY: as above.
    config.signal = unsafe { find(environment, ENV_SIGNAL) }.and_then(parse_signal).unwrap_or(DEFAULT_SIGNAL);
    // SAFETY: as above.
    if let Some((launcher, shielded)) = unsafe { find(environment, ENV_SHIELD) }.and_then(parse_shield) {
        (config.launcher, config.shielded) = (launcher, shielded.without(config.signal));
        config.shield = on_shielded_signal as *const () as u64;
    }
    (config.rseq_offset, config.rseq_size) = libc::rseq();
    // SAFETY: as above.
    config.hides_io_uring = unsafe { find(environment, ENV_IO_URING) }.is_none();
    // SAFETY: as above.
    unsafe {
        keep(environment, config);
        if let Some(directory) = find(environment, ENV_TOUCHED) {
            touched::keep_variable(directory);
        }
        by_number::prepare();
        OWNER.store(syscall!(nr::__NR_getpid).unwrap_or(0) as i32, Relaxed);
        install(config.signal);
    }
}

/// Installs the handlers and lets their signals in. The program may have been started with them blocked, so that a signal that came during
/// `exec` is pending until now.
///
/// # Safety
/// The agent must be configured.
unsafe fn install(signal: i32) {
    // Every signal that is not ignored is blocked while they run. Runtimes that run their code on stacks of a few KiB (goroutines, fibers) have an alternate one for
    // handlers.
    let restorer = restorer as *const () as u64;
    ckpt_agent_action.set(on_checkpoint_signal as *const () as u64, FLAGS, restorer);
    ckpt_agent_action.leave_out(ignored(IGNORED_BY_DEFAULT));
    set_action(signal);
    // SAFETY: the agent is configured.
    unsafe { shield::install_all(FLAGS, restorer) };
    let before = change_mask(nr::SIG_UNBLOCK, SignalSet::of(signal));
    if before & SHIELD_MARKS == SHIELD_MARK {
        change_mask(nr::SIG_UNBLOCK, SHIELD_MARK | CONFIG.get().shielded);
    }
}

fn set_action(signal: i32) {
    // SAFETY: the action is a kernel sigaction that lives for ever; the handler has the signature that SA_SIGINFO asks for.
    let _ = unsafe { syscall!(nr::__NR_rt_sigaction, signal, &raw const ckpt_agent_action, 0, 8) };
}

/// A program is about to set the action of a signal. A signal that was ignored is blocked from then on while the handler runs: see `ckpt_agent`'s
/// `ignored`.
pub fn before_action(signal: c_int, handler: u64) {
    if (1..=64).contains(&signal) && !is_ignored(signal, handler) {
        wait_while_frozen();
        if CONFIG.get().signal != 0 && ckpt_agent_action.block(SignalSet::of(signal)) {
            set_action(CONFIG.get().signal);
        }
    }
}

/// A program has set the action of a signal. A signal that is ignored is not blocked any more while the handler runs.
pub fn after_action(signal: c_int, handler: u64) {
    let is_let_in = (1..=64).contains(&signal) && is_ignored(signal, handler) && CONFIG.get().signal != 0;
    if is_let_in && ckpt_agent_action.leave_out(SignalSet::of(signal)) {
        set_action(CONFIG.get().signal);
    }
}

/// Bytes that the handler needs of an alternate stack beside the registers: the rest of the kernel's frame, and its own.
const HANDLER_STACK: usize = 8 << 10;

/// A thread is about to have an alternate stack of `size` bytes. The handler must not use a stack that is too small: the kernel would end the
/// process. The flag is the whole process's, so from then on the handler runs on the stack of the thread, as it does without such a stack.
pub fn leave_small_stacks(size: usize) {
    if size < HANDLER_STACK + ckpt_sys::cpu::xsave_size() as usize && ckpt_agent_action.clear_flag(nr::SA_ONSTACK) {
        set_action(CONFIG.get().signal);
        shield::leave_alternate_stack();
    }
}

/// What the handler is installed with; zeroes before it is. The coordinator finds it by its name where a program has put a handler of its own in
/// the place of ours by a raw call.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "a name of the linker's")]
pub static ckpt_agent_action: Action = Action::new();

/// A system call instruction, which the coordinator has a thread run to install the handler again.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_agent_syscall() -> ! {
    core::arch::naked_asm!("syscall", "ud2")
}

/// The way back from the handler. Debuggers and unwinders know a signal frame by these very instructions.
#[unsafe(naked)]
unsafe extern "C" fn restorer() -> ! {
    core::arch::naked_asm!("mov rax, 15", "syscall", "ud2")
}

/// The value of a variable.
///
/// # Safety
/// `environment` must be null or a list of C strings that ends with a null pointer.
pub unsafe fn find(environment: *const *const c_char, name: &str) -> Option<&'static [u8]> {
    if environment.is_null() {
        return None;
    }
    let mut at = environment;
    // SAFETY: the caller's promise.
    unsafe {
        while !(*at).is_null() {
            if let Some(value) = value_of(*at, name) {
                return Some(value);
            }
            at = at.add(1);
        }
    }
    None
}

/// The value of `NAME=VALUE` if the name is this one. Compares no more than it must: this runs for each variable of each program.
///
/// # Safety
/// `variable` must be a C string.
pub unsafe fn value_of(variable: *const c_char, name: &str) -> Option<&'static [u8]> {
    for (i, &byte) in name.as_bytes().iter().enumerate() {
        // SAFETY: a zero byte differs from every byte of the name, so the string is not overrun.
        if unsafe { *variable.add(i) } as u8 != byte {
            return None;
        }
    }
    // SAFETY: the name matched, so this byte is there.
    if unsafe { *variable.add(name.len()) } as u8 != b'=' {
        return None;
    }
    // SAFETY: what follows is the rest of a C string.
    Some(unsafe { CStr::from_ptr(variable.add(name.len() + 1)) }.to_bytes())
}

/// Copies the variables that are to be kept.
///
/// # Safety
/// As for [`find`].
unsafe fn keep(environment: *const *const c_char, config: &mut Config) {
    let mut len = 0;
    for name in NAMES {
        // SAFETY: the caller's promise.
        let Some(value) = (unsafe { find(environment, name) }) else { continue };
        for part in [name.as_bytes(), b"=", value, b"\0"] {
            let Some(room) = config.kept.get_mut(len..len + part.len()) else { return };
            room.copy_from_slice(part);
            len += part.len();
        }
        config.kept_len = len;
    }
}
