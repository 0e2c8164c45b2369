//! The library that `LD_PRELOAD` brings into every process of a job: a constructor, and the few functions of libc that could take the agent
//! away from a process.
//!
//! - `action`: `struct sigaction`.
//! - `environment`: the constructor, and the variables that it keeps; `kept`: these.
//! - `exec`: `exec*` and `posix_spawn*`, so that a program that cleans its environment keeps the agent.
//! - `signals`: the calls that could block, consume or replace the checkpoint signal or the shield.
//! - `shield`: the shield in the place of default actions.
//! - `sleep`: `nanosleep` and `clock_nanosleep`, so that the kernel says how much of the time is left.
//! - `started`: `/proc/PID/stat`, so that a restarted process has started when its predecessor did.
//! - `touched`: the calls that change files, each of which is noted before it is made.
//! - `loaded`: the list of loaded objects, in which this library comes last.
//! - `by_number`: the same calls, where a program makes them by `syscall`.
//! - `libc`: how the next definition of a function is found, and `errno`.
//!
//! It links to nothing: one build serves every glibc and musl. It must not define a symbol that it does not mean to interpose.
#![no_std]

mod action;
mod by_number;
mod environment;
mod exec;
mod kept;
mod libc;
mod loaded;
mod memory;
mod shield;
mod signals;
mod sleep;
mod started;
mod touched;

/// The agent does not panic; were it to, there is nothing better to do than to end the process, with a line that says so.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    const MESSAGE: &[u8] = b"ckpt: internal error in the agent, please report it\n";
    // SAFETY: writes a constant, then ends the process.
    unsafe {
        let _ = ckpt_sys::syscall!(linux_raw_sys::general::__NR_write, 2, MESSAGE.as_ptr(), MESSAGE.len());
        let _ = ckpt_sys::syscall!(linux_raw_sys::general::__NR_exit_group, 125);
    }
    loop {
        core::hint::spin_loop();
    }
}

// Referred to by the precompiled `core`, which is built to unwind; nothing here does. Hidden, as in `memory`.
core::arch::global_asm!(".globl rust_eh_personality", ".hidden rust_eh_personality", "rust_eh_personality:", "ud2");
