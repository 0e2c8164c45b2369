//! `exec*` and `posix_spawn*`: the new program keeps the agent, whatever environment it is given. A checkpoint signal that comes meanwhile is
//! pending until the new program's agent is there. So is a shielded signal, unless the new program will have no agent: it could not unblock
//! the signal.

use core::ffi::{CStr, c_char, c_int, c_void};

use ckpt_agent::{CONFIG, change_mask};
use ckpt_sys::program::{found_heeds_preload, heeds_preload};
use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::syscall;
use ckpt_wire::{ENV_AGENT, SHIELD_MARK, SHIELD_MARKS};
use linux_raw_sys::general as nr;

use crate::environment::{find, value_of};
use crate::kept::{kept, kept_value};
use crate::libc::{self, ENOSYS};
use crate::next;

type Strings = *const *const c_char;

/// Pointers that a new environment may have before it is put into memory of its own.
const MANY: usize = 1024;
/// Bytes of a new `LD_PRELOAD`.
const PRELOAD_ROOM: usize = 4096;
const LD_PRELOAD: &str = "LD_PRELOAD";

/// Calls `f` with the environment as it is, or with the agent's variables put into it. Allocates nothing: the caller may be a child of `vfork`, or of a
/// `fork` whose parent held a lock.
///
/// # Safety
/// `environment` must be null or a list of C strings that ends with a null pointer.
unsafe fn with_agent<R>(environment: Strings, f: impl FnOnce(Strings) -> R) -> R {
    let Some(agent) = kept_value(ENV_AGENT) else { return f(environment) };
    // SAFETY: the caller's promise.
    let (count, complete) = unsafe { inspect(environment, agent) };
    if complete {
        return f(environment);
    }
    let mut preload = [0u8; PRELOAD_ROOM];
    let room = count + kept().count() + 2;
    if room <= MANY {
        let mut pointers = [core::ptr::null::<c_char>(); MANY];
        // SAFETY: there is room for what is put in.
        unsafe { compose(environment, agent, &mut preload, &mut pointers) };
        return f(pointers.as_ptr());
    }
    let bytes = room * size_of::<*const c_char>();
    let flags = nr::MAP_PRIVATE | nr::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED no mapping of the program is touched.
    let Ok(memory) = (unsafe { syscall!(nr::__NR_mmap, 0, bytes, nr::PROT_READ | nr::PROT_WRITE, flags, -1i32, 0) }) else {
        return f(environment);
    };
    // SAFETY: the memory was just mapped, zeroed, for `room` pointers.
    let pointers = unsafe { core::slice::from_raw_parts_mut(memory as *mut *const c_char, room) };
    // SAFETY: there is room for what is put in.
    unsafe { compose(environment, agent, &mut preload, pointers) };
    let result = f(pointers.as_ptr());
    // SAFETY: the call is over; nothing refers to the memory any more.
    let _ = unsafe { syscall!(nr::__NR_munmap, memory, bytes) };
    result
}

/// How many variables there are, and whether the agent's are among them already.
///
/// # Safety
/// As for [`with_agent`].
unsafe fn inspect(environment: Strings, agent: &[u8]) -> (usize, bool) {
    let (mut count, mut found, mut preloaded) = (0, 0, false);
    if !environment.is_null() {
        // SAFETY: the caller's promise.
        unsafe {
            while !(*environment.add(count)).is_null() {
                let variable = *environment.add(count);
                if let Some(value) = value_of(variable, LD_PRELOAD) {
                    preloaded = lists(value, agent);
                } else if is_kept(variable) {
                    found += 1;
                }
                count += 1;
            }
        }
    }
    (count, preloaded && found == kept().count())
}

/// Whether an `LD_PRELOAD` lists this library. Both blanks and colons separate entries (ld.so(8)).
fn lists(preload: &[u8], library: &[u8]) -> bool {
    preload.split(|&byte| byte == b':' || byte == b' ').any(|entry| entry == library)
}

/// Whether this variable is kept, with this value.
///
/// # Safety
/// `variable` must be a C string.
unsafe fn is_kept(variable: *const c_char) -> bool {
    kept().any(|kept| {
        let (name, value) = split(kept.to_bytes());
        // SAFETY: the caller's promise.
        unsafe { value_of(variable, name) == Some(value) }
    })
}

fn split(variable: &[u8]) -> (&str, &[u8]) {
    let at = variable.iter().position(|&byte| byte == b'=').unwrap_or(variable.len());
    let name = variable.get(..at).and_then(|name| core::str::from_utf8(name).ok()).unwrap_or("");
    (name, variable.get(at + 1..).unwrap_or(&[]))
}

/// Puts a new environment together in `pointers`, which is zeroed and long enough.
///
/// # Safety
/// As for [`with_agent`].
unsafe fn compose(environment: Strings, agent: &[u8], preload: &mut [u8], pointers: &mut [*const c_char]) {
    let mut others: &[u8] = &[];
    let mut len = 0;
    let mut push = |variable: *const c_char| {
        if let Some(slot) = pointers.get_mut(len) {
            *slot = variable;
            len += 1;
        }
    };
    if !environment.is_null() {
        let mut at = environment;
        // SAFETY: the caller's promise.
        unsafe {
            while !(*at).is_null() {
                let variable = *at;
                at = at.add(1);
                if let Some(value) = value_of(variable, LD_PRELOAD) {
                    others = value;
                } else if !kept().any(|kept| value_of(variable, split(kept.to_bytes()).0).is_some()) {
                    push(variable);
                }
            }
        }
    }
    for variable in kept() {
        push(variable.as_ptr());
    }
    // The agent first: what a program preloads of its own may rest on libc's functions as we define them.
    let mut at = 0;
    let mut append = |bytes: &[u8]| {
        if let Some(room) = preload.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
            at += bytes.len();
        }
    };
    append(LD_PRELOAD.as_bytes());
    append(b"=");
    if !lists(others, agent) {
        append(agent);
        append(if others.is_empty() { b"" } else { b":" });
    }
    append(others);
    if at < preload.len() {
        push(preload.as_ptr().cast());
    }
}

/// The program that is executed.
#[derive(Clone, Copy)]
enum Program {
    /// A file, by its path relative to a directory, or that directory's descriptor itself.
    File(c_int, *const c_char),
    /// A file that is searched for in `PATH` where its name has no slash.
    Searched(*const c_char),
}

impl Program {
    /// Whether it will have the agent.
    ///
    /// # Safety
    /// The name must be null or a C string.
    unsafe fn takes_agent(self) -> bool {
        let (Self::File(_, name) | Self::Searched(name)) = self;
        let Some(agent) = kept_value(ENV_AGENT).filter(|_| !name.is_null()) else { return false };
        // What is kept are C strings. Where the process has another root the agent may not be there.
        // SAFETY: the path ends with a zero byte.
        let agent_is_there = unsafe { syscall!(nr::__NR_access, agent.as_ptr(), 0) }.is_ok();
        // SAFETY: the caller's promise.
        let name = unsafe { CStr::from_ptr(name) };
        agent_is_there
            && match self {
                Self::File(dir, _) => heeds_preload(dir, name),
                Self::Searched(_) => {
                    // SAFETY: the C library's environment.
                    let list = unsafe { find(libc::environ(), "PATH") };
                    found_heeds_preload(name, list.unwrap_or(b"/bin:/usr/bin"))
                }
            }
    }
}

/// The signals that a program is started with blocked, by the mask that it would have.
///
/// The checkpoint signal in any case. The shielded ones only where the agent will let them in again, and only all together: which of them the program
/// blocks itself could not be told later. A mark says that they are blocked.
fn to_hold(mask: SignalSet, takes_agent: bool) -> SignalSet {
    let config = CONFIG.get();
    let checkpoint = SignalSet::of(config.signal);
    let holds_all = takes_agent && (mask & (config.shielded | SHIELD_MARKS)).is_empty();
    if holds_all { checkpoint | config.shielded | SHIELD_MARK } else { checkpoint }
}

/// Blocks signals in this thread while `f` runs. The new program inherits the mask, and its constructor lets the signals in again when its
/// handlers are there. A signal that comes in between is pending instead of ending the program.
fn with_signals_held<R>(takes_agent: bool, f: impl FnOnce() -> R) -> R {
    if CONFIG.get().signal == 0 {
        return f();
    }
    let before = change_mask(nr::SIG_BLOCK, SignalSet::EMPTY);
    let held = to_hold(before, takes_agent) - before;
    change_mask(nr::SIG_BLOCK, held);
    let result = f();
    change_mask(nr::SIG_UNBLOCK, held);
    result
}

/// Calls `f` with the environment that the new program gets, the signals held.
///
/// # Safety
/// As for [`with_agent`] and [`Program::takes_agent`].
unsafe fn launch<R>(program: Program, environment: Strings, f: impl FnOnce(Strings) -> R) -> R {
    // SAFETY: the caller's promise.
    unsafe {
        let takes_agent = program.takes_agent();
        with_agent(environment, |environment| with_signals_held(takes_agent, || f(environment)))
    }
}

type ExecVe = unsafe extern "C" fn(*const c_char, Strings, Strings) -> c_int;
type FexecVe = unsafe extern "C" fn(c_int, Strings, Strings) -> c_int;
type ExecVeAt = unsafe extern "C" fn(c_int, *const c_char, Strings, Strings, c_int) -> c_int;

/// execve(2).
///
/// # Safety
/// As for the C function; so for all below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execve(path: *const c_char, argv: Strings, envp: Strings) -> c_int {
    let Some(call) = next!(c"execve" as ExecVe) else { return libc::fail(ENOSYS) };
    // SAFETY: the caller's promise.
    unsafe { launch(Program::File(nr::AT_FDCWD, path), envp, |envp| call(path, argv, envp)) }
}

/// execv(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { execve(path, argv, libc::environ()) }
}

/// execvpe(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
    let Some(call) = next!(c"execvpe" as ExecVe) else { return libc::fail(ENOSYS) };
    // SAFETY: the caller's promise.
    unsafe { launch(Program::Searched(file), envp, |envp| call(file, argv, envp)) }
}

/// execvp(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvp(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { execvpe(file, argv, libc::environ()) }
}

/// fexecve(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fexecve(fd: c_int, argv: Strings, envp: Strings) -> c_int {
    let Some(call) = next!(c"fexecve" as FexecVe) else { return libc::fail(ENOSYS) };
    // SAFETY: the caller's promise.
    unsafe { launch(Program::File(fd, c"".as_ptr()), envp, |envp| call(fd, argv, envp)) }
}

/// execveat(2).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execveat(dir: c_int, path: *const c_char, argv: Strings, envp: Strings, flags: c_int) -> c_int {
    let Some(call) = next!(c"execveat" as ExecVeAt) else { return libc::fail(ENOSYS) };
    // SAFETY: the caller's promise.
    unsafe { launch(Program::File(dir, path), envp, |envp| call(dir, path, argv, envp, flags)) }
}

/// A C-variadic function of this shape: `(path, arg0, …, NULL)`, its arguments laid out as an array on the stack and passed on as `(path,
/// array)`. Stable Rust cannot define variadic functions.
macro_rules! variadic_exec {
    ($(#[$doc:meta])* $name:ident => $target:ident) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() -> c_int {
            core::arch::naked_asm!(
                // The first arguments are in registers, the others above the return address: with that out of the way they join up.
                "pop rax",
                "push r9",
                "push r8",
                "push rcx",
                "push rdx",
                "push rsi",
                "mov rsi, rsp",
                "push rax",
                "call {target}",
                "pop rcx",
                "add rsp, 40",
                "jmp rcx",
                target = sym $target,
            )
        }
    };
}

unsafe extern "C" fn execl_with(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller of `execl` passed arguments that end with a null pointer.
    unsafe { execve(path, argv, libc::environ()) }
}

unsafe extern "C" fn execlp_with(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller of `execlp` passed arguments that end with a null pointer.
    unsafe { execvpe(file, argv, libc::environ()) }
}

unsafe extern "C" fn execle_with(path: *const c_char, argv: Strings) -> c_int {
    let mut end = argv;
    // SAFETY: the caller of `execle` passed arguments that end with a null pointer, and the environment after it.
    unsafe {
        while !(*end).is_null() {
            end = end.add(1);
        }
        execve(path, argv, *end.add(1) as Strings)
    }
}

variadic_exec!(
    /// execl(3).
    ///
    /// # Safety
    /// As for the C function.
    execl => execl_with
);
variadic_exec!(
    /// execlp(3).
    ///
    /// # Safety
    /// As for the C function.
    execlp => execlp_with
);
variadic_exec!(
    /// execle(3).
    ///
    /// # Safety
    /// As for the C function.
    execle => execle_with
);

/// `POSIX_SPAWN_SETSIGMASK`, the same in glibc and musl.
const POSIX_SPAWN_SETSIGMASK: i16 = 8;

/// `posix_spawnattr_t`: 336 bytes in glibc and in musl, which both begin with the flags, the process group, and two signal sets of 128 bytes:
/// the signals to reset and the mask (glibc posix/spawn.h; musl include/spawn.h has an int of flags).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SpawnAttributes {
    flags: i16,
    group: i32,
    defaults: [u64; 16],
    mask: [u64; 16],
    rest: [u64; 9],
}

type Spawn = unsafe extern "C" fn(*mut c_int, *const c_char, *const c_void, *const SpawnAttributes, Strings, Strings) -> c_int;

/// # Safety
/// As for posix_spawn(3).
#[allow(clippy::too_many_arguments, reason = "posix_spawn has as many")]
unsafe fn spawn(
    call: Spawn,
    program: Program,
    pid: *mut c_int,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const SpawnAttributes,
    argv: Strings,
    envp: Strings,
) -> c_int {
    // The child takes its mask from the attributes where they have one, else from the caller, where the signals are held.
    // SAFETY: the caller's promise; attributes are read and copied as the C libraries lay them out.
    unsafe {
        if CONFIG.get().signal > 0 && !attributes.is_null() && (*attributes).flags & POSIX_SPAWN_SETSIGMASK != 0 {
            let mut own = *attributes;
            own.mask[0] |= to_hold(SignalSet::from_bits(own.mask[0]), program.takes_agent()).bits();
            return with_agent(envp, |envp| call(pid, path, actions, &raw const own, argv, envp));
        }
        launch(program, envp, |envp| call(pid, path, actions, attributes, argv, envp))
    }
}

/// posix_spawn(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
#[allow(private_interfaces, reason = "C programs call it, with the C library's type")]
pub unsafe extern "C" fn posix_spawn(
    pid: *mut c_int,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const SpawnAttributes,
    argv: Strings,
    envp: Strings,
) -> c_int {
    let Some(call) = next!(c"posix_spawn" as Spawn) else { return ENOSYS };
    // SAFETY: the caller's promise.
    unsafe { spawn(call, Program::File(nr::AT_FDCWD, path), pid, path, actions, attributes, argv, envp) }
}

/// posix_spawnp(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
#[allow(private_interfaces, reason = "C programs call it, with the C library's type")]
pub unsafe extern "C" fn posix_spawnp(
    pid: *mut c_int,
    file: *const c_char,
    actions: *const c_void,
    attributes: *const SpawnAttributes,
    argv: Strings,
    envp: Strings,
) -> c_int {
    let Some(call) = next!(c"posix_spawnp" as Spawn) else { return ENOSYS };
    // SAFETY: the caller's promise.
    unsafe { spawn(call, Program::Searched(file), pid, file, actions, attributes, argv, envp) }
}
