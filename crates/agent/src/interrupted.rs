//! System calls that the checkpoint signal interrupted: they are made again, with the time that is left.
//!
//! Our handler has `SA_RESTART`, so the kernel itself repeats most calls. Those that it ends with `EINTR` all the same
//! (signal(7): `poll`, `select`, `epoll_wait`, `nanosleep`, `sigtimedwait` and their like) are put back to the `syscall`
//! instruction in the thread's frame. Which call it was is known from `/proc/PID/task/TID/syscall`, read before the signal was
//! sent. Those that have transferred something end there, and are gone on with ([`transfer`]).
//!
//! A call with a relative time-out must then be given less: otherwise a job that is checkpointed every second would sleep for
//! ever. How long the thread had slept is told by the scheduler's note of when it last ran (`se.exec_start` in
//! `/proc/PID/task/TID/sched`).

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use ckpt_sys::blocked;
use ckpt_sys::sigframe::{SigContext, UContext};
use ckpt_sys::syscall;
use ckpt_wire::{BlockedCall, PAGE_SIZE};
use linux_raw_sys::{general as nr, net};

use crate::call::{self, nr_errno};
use crate::ignored;
use crate::procfs;
use crate::shield;
use crate::state::{CONFIG, TIMEOUT_SLOTS, TIMEOUTS};
use crate::transfer;

/// `TIMER_ABSTIME`.
const TIMER_ABSTIME: u64 = 1;
/// The `syscall` instruction.
pub const SYSCALL_INSTRUCTION: [u8; 2] = [0x0f, 0x05];

/// Words of a processor mask: the kernel's limit is 8192 processors.
const CPU_WORDS: usize = 128;

/// What `reserved[0]` of a frame holds whose call was put back; the registers that [`shorten`] may change follow, as they were.
/// The kernel neither writes nor reads these words, and they are in the image with the frame: a thread that is restored may have
/// to undo it too.
const PUT_BACK: u64 = u64::from_be_bytes(*b"put back");
/// What it holds where the kernel makes the call again, because our handler has `SA_RESTART`.
const RESTARTED: u64 = u64::from_be_bytes(*b"restarts");
/// What it holds where a transfer that was cut short is gone on with.
const GONE_ON: u64 = u64::from_be_bytes(*b"goes on ");

/// What a thread of this process is blocked in right now; `notes` says whether the scheduler's may be used.
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

/// As [`make_again`]; where the number of the call must be read from the code, only some numbers are believed.
///
/// # Safety
/// As for [`make_again`].
unsafe fn make_again_if(frame: *mut UContext, call: &BlockedCall, tid: i32, is_looked_for: fn(u32) -> bool) -> Option<()> {
    // SAFETY: the caller's promise.
    let context = unsafe { &mut (*frame).context };
    context.reserved[0] = 0;
    let is_blocked_at = |pc: u64| call.valid == 1 && call.pc == pc && call.sp == context.rsp;
    // A system call leaves the address that it returns to in `rcx` (syscall in Intel's manual).
    let has_returned = context.rcx == context.rip && is_call_at(context.rip.wrapping_sub(SYSCALL_INSTRUCTION.len() as u64));
    if context.rax.cast_signed() > 0 && has_returned {
        let number =
            if is_blocked_at(context.rip) { call.number } else { number_of_past_call(context, transfer::may_be_cut_short)? };
        // SAFETY: a call has just returned, and the registers are those that the thread goes on with.
        if unsafe { transfer::go_on(context, number) } {
            context.reserved[0] = GONE_ON;
        }
        return None;
    }
    if context.rax != -i64::from(nr_errno::EINTR) as u64 {
        // The registers are those of a thread that is about to make a call for the first time, too. That the signal came just
        // before it is as good, where the call may wait.
        let after = context.rip + SYSCALL_INSTRUCTION.len() as u64;
        let is_it = || is_blocked_at(after) && context.rax == u64::from(call.number);
        if may_be_restarted(context) && (is_it() || is_call_at(context.rip) && may_wait(context)) {
            context.reserved[0] = RESTARTED;
        }
        return None;
    }
    let (number, elapsed) = if is_blocked_at(context.rip) {
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
    context.rip -= SYSCALL_INSTRUCTION.len() as u64;
    context.rax = u64::from(number);
    // SAFETY: the arguments are those of an interrupted call of this thread: their pointers are valid or the call would have
    // failed.
    unsafe { shorten(context, number, elapsed, tid) };
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

/// Bytes of code before a system call in which its number is looked for.
const CODE_BEFORE: usize = 40;
/// The same, before the call of a function.
const CODE_BEFORE_CALL: usize = 64;
/// Words on the stack among which the return addresses of such functions are looked for.
const STACK_WORDS: usize = 48;
/// How many such functions may be around a system call.
const CALLERS: usize = 3;

/// The number of the system call that has just returned, if it is one that is looked for.
fn number_of_past_call(context: &SigContext, is_looked_for: fn(u32) -> bool) -> Option<u32> {
    transfer::number(context).filter(|number| is_looked_for(*number)).or_else(|| number_from_code(context, is_looked_for))
}

/// The same, as the code tells it.
///
/// The nearest `mov eax, NUMBER` before it loads the number; compilers put other moves between the two, so any place shortly
/// before is looked at. A function that makes any call (`syscall`; what makes those that a thread can be cancelled in) takes it
/// from what its caller gave it.
fn number_from_code(context: &SigContext, is_looked_for: fn(u32) -> bool) -> Option<u32> {
    let mut code = [0u8; CODE_BEFORE];
    let first = context.rip.wrapping_sub(CODE_BEFORE as u64);
    // A system call has just returned to `rip`, so the code before it is there; what lies before the start of its page need not
    // be.
    let page = (context.rip - 2) & !(PAGE_SIZE as u64 - 1);
    let skip = usize::try_from(page.saturating_sub(first)).unwrap_or(0).min(CODE_BEFORE - 2);
    // SAFETY: from the start of the page that holds the system call instruction the code is mapped.
    unsafe {
        core::ptr::copy_nonoverlapping((first + skip as u64) as *const u8, code.as_mut_ptr().add(skip), CODE_BEFORE - skip);
    }
    if code.get(CODE_BEFORE - 2..)? != SYSCALL_INSTRUCTION {
        return None;
    }
    let (number, at) = match last_load(&code, 0xb8) {
        Some((number, at)) => (Some(number), at),
        None => (None, 0),
    };
    // `mov rax, REGISTER` or `mov rax, [rsp or rbp + …]` after that.
    let is_given = code.get(at..)?.windows(3).any(|window| match *window {
        [0x48 | 0x4c, 0x89, operands] => operands & 0o307 == 0o300,
        [0x48, 0x8b, operands] => matches!(operands, 0x44 | 0x45 | 0x84 | 0x85),
        _ => false,
    });
    let number = if is_given { number_from_callers(context.rsp, is_looked_for) } else { number };
    number.filter(|number| is_looked_for(*number))
}

/// The number that a function which makes any call was given: its seventh argument, which is pushed, or its first. Only numbers
/// that are looked for are believed.
fn number_from_callers(sp: u64, is_looked_for: fn(u32) -> bool) -> Option<u32> {
    let mut stack = [0u64; STACK_WORDS];
    let words = copy_from(sp, &mut stack) / size_of::<u64>();
    let stack = stack.get(..words)?;
    let calls = stack.iter().zip(1..).filter_map(|(&word, next)| {
        let mut words = [0u64; CODE_BEFORE_CALL / size_of::<u64>()];
        if copy_from(word.wrapping_sub(CODE_BEFORE_CALL as u64), &mut words) < CODE_BEFORE_CALL {
            return None;
        }
        let mut code = [0u8; CODE_BEFORE_CALL];
        for (to, from) in code.iter_mut().zip(words.iter().flat_map(|word| word.to_le_bytes())) {
            *to = from;
        }
        // A call of a function: of an address, of one that lies at an address, or in a register.
        matches!(code, [.., 0xe8, _, _, _, _] | [.., 0xff, 0x15, _, _, _, _] | [.., 0xff, 0xd0..=0xd7])
            .then(|| (code, stack.get(next).copied().unwrap_or(0)))
    });
    calls.take(CALLERS).find_map(|(code, above)| {
        let pushes = |window: &[u8]| match *window {
            [0x6a, number, ..] => u64::from(number) == above,
            [0x68, a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])) == above,
            _ => false,
        };
        let pushed = code.windows(5).any(pushes).then_some(above as u32);
        // After another call before it, the register holds something else.
        let first = || {
            let (number, at) = last_load(&code, 0xbf)?;
            let calls_between = code.get(at..code.len() - 5)?.contains(&0xe8);
            (!calls_between).then_some(number)
        };
        pushed.filter(|number| is_looked_for(*number)).or_else(|| first().filter(|number| is_looked_for(*number)))
    })
}

/// The number that the last `mov REGISTER, NUMBER` in some code loads (each register has its own instruction), and where the code
/// goes on.
fn last_load(code: &[u8], instruction: u8) -> Option<(u32, usize)> {
    let at = code.windows(5).rposition(|window| window.first() == Some(&instruction))?;
    let number = code.get(at + 1..at + 5)?.try_into().ok()?;
    Some((u32::from_le_bytes(number), at + 5))
}

/// Copies memory of this process that may not be there; gives how many bytes were.
fn copy_from(address: u64, to: &mut [u64]) -> usize {
    let len = size_of_val(to) as u64;
    let (local, remote) = ([to.as_mut_ptr() as u64, len], [address, len]);
    // SAFETY: two arrays of one `iovec`; the local one is writable for its length, the other is only read.
    unsafe { syscall!(nr::__NR_process_vm_readv, call::getpid(), local.as_ptr(), 1, remote.as_ptr(), 1, 0) }.unwrap_or(0) as usize
}

/// Whether a call may end with `EINTR` when a handler runs, whatever `SA_RESTART` says (signal(7)).
fn ends_for_any_signal(number: u32) -> bool {
    blocked::has_relative_timeout(number)
        || matches!(
            number,
            nr::__NR_select
                | nr::__NR_pselect6
                | nr::__NR_ppoll
                | nr::__NR_pause
                | nr::__NR_rt_sigsuspend
                | nr::__NR_msgrcv
                | nr::__NR_msgsnd
                | nr::__NR_semop
                | nr::__NR_recvmmsg
                // Of a socket with a time-out.
                | nr::__NR_recvfrom
                | nr::__NR_recvmsg
                | nr::__NR_sendto
                | nr::__NR_sendmsg
                | nr::__NR_accept
                | nr::__NR_accept4
                | nr::__NR_connect
        )
}

/// Whether a call may end with `EINTR` when a handler runs that was installed without `SA_RESTART`.
fn ends_without_restart(number: u32) -> bool {
    ends_for_any_signal(number)
        || matches!(
            number,
            nr::__NR_read
                | nr::__NR_readv
                | nr::__NR_write
                | nr::__NR_writev
                | nr::__NR_open
                | nr::__NR_openat
                | nr::__NR_wait4
                | nr::__NR_waitid
                | nr::__NR_fcntl
                | nr::__NR_flock
                | nr::__NR_getrandom
                | nr::__NR_mq_timedsend
                | nr::__NR_mq_timedreceive
                | nr::__NR_sendmmsg
                | nr::__NR_splice
                | nr::__NR_tee
        )
}

/// Takes the time that has passed off a relative time-out.
///
/// # Safety
/// `context` must hold the arguments of an interrupted call `number`.
unsafe fn shorten(context: &mut SigContext, number: u32, elapsed_ns: u64, tid: i32) {
    match number {
        nr::__NR_poll => context.rdx = fewer_ms(context.rdx, elapsed_ns),
        nr::__NR_epoll_wait | nr::__NR_epoll_pwait => context.r10 = fewer_ms(context.r10, elapsed_ns),
        // The kernel has written the time that is left to the second argument where there is one.
        nr::__NR_nanosleep if context.rsi != 0 => context.rdi = context.rsi,
        // SAFETY: the first argument is the time-out.
        nr::__NR_nanosleep => context.rdi = unsafe { fewer(context.rdi, elapsed_ns, tid) },
        nr::__NR_clock_nanosleep if context.rsi & TIMER_ABSTIME != 0 => (),
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

/// Milliseconds less what has passed; negative (without end) and zero stay.
fn fewer_ms(timeout: u64, elapsed_ns: u64) -> u64 {
    let timeout = timeout as i32;
    if timeout <= 0 {
        return u64::from(timeout as u32);
    }
    u64::from(timeout as u32).saturating_sub(elapsed_ns / 1_000_000)
}

/// The address of a `timespec` with what is left of the one at `timeout`; 0 (none) stays.
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
    let first = tid as usize % TIMEOUT_SLOTS;
    let own = (0..8)
        .map(|i| &TIMEOUTS[(first + i) % TIMEOUT_SLOTS])
        .find(|slot| slot.owner.load(Relaxed) == tid || slot.owner.compare_exchange(0, tid, AcqRel, Acquire).is_ok());
    // Eight threads have these slots already, perhaps long ended: theirs is taken.
    let slot = own.unwrap_or(&TIMEOUTS[first]);
    slot.owner.store(tid, Relaxed);
    slot.seconds.store(left / 1_000_000_000, Relaxed);
    slot.nanoseconds.store(left % 1_000_000_000, Relaxed);
    slot.seconds.as_ptr() as u64
}

/// Has a call that is about to be made again fail with `EINTR` when a signal of the job's own waits that would have ended it: a
/// program that waits for that signal in `pause`, or in `read` with a handler that was installed without `SA_RESTART`, would wait
/// for ever otherwise. To be asked again whenever a signal may have come.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn end_if_signalled(frame: *mut UContext) {
    // SAFETY: the caller's promise.
    let frame = unsafe { &mut *frame };
    let mark = frame.context.reserved[0];
    let by_any_handler = match mark {
        // Every handler cuts a transfer short.
        PUT_BACK | GONE_ON => true,
        RESTARTED => false,
        _ => return,
    };
    let mut pending = 0u64;
    // SAFETY: `pending` is a signal set of 8 bytes.
    let _ = unsafe { syscall!(nr::__NR_rt_sigpending, &raw mut pending, 8) };
    // Another of ours makes the call again too.
    let mut deliverable = pending & !frame.sigmask & !(1 << (CONFIG.get().signal - 1));
    while deliverable != 0 {
        let bit = deliverable.trailing_zeros();
        deliverable &= deliverable - 1;
        if ends_a_call(bit, by_any_handler) {
            let context = &mut frame.context;
            if mark == PUT_BACK {
                [_, context.rdi, context.rdx, context.r10, context.r8, ..] = context.reserved;
            }
            context.reserved[0] = 0;
            context.rip += SYSCALL_INSTRUCTION.len() as u64;
            context.rax = -i64::from(nr_errno::EINTR) as u64;
            return;
        }
    }
}

/// Whether a signal (its bit) ends a call: one that every handler ends, or one that only a handler without `SA_RESTART` does.
fn ends_a_call(bit: u32, by_any_handler: bool) -> bool {
    match handler_of(bit) {
        (0, _) => by_any_handler && ignored::BY_DEFAULT & 1 << bit == 0,
        (handler, flags) => is_the_programs(handler) && (by_any_handler || flags & shield::SA_RESTART == 0),
    }
}

/// Whether a signal (its bit) has a handler of the program's.
pub fn has_handler(bit: u32) -> bool {
    is_the_programs(handler_of(bit).0)
}

fn is_the_programs(handler: u64) -> bool {
    // The shield drops the signal, or ends the process.
    !matches!(handler, 0 | 1) && !shield::is_shield(handler)
}

/// The handler of a signal (its bit), as the kernel knows it, and its flags.
fn handler_of(bit: u32) -> (u64, u64) {
    let mut action = [0u64; 4];
    // SAFETY: with no new action, the old one is written to `action`, a kernel sigaction.
    let _ = unsafe { syscall!(nr::__NR_rt_sigaction, bit + 1, 0, action.as_mut_ptr(), 8) };
    (action[0], action[1])
}

/// Whether the registers are those of a thread that is about to make a call of those that the kernel makes again for a handler
/// with `SA_RESTART` (`ERESTARTSYS`).
fn may_be_restarted(context: &SigContext) -> bool {
    let Ok(number) = u32::try_from(context.rax) else { return false };
    match number {
        // The other commands are made again whatever the handler (`ERESTARTNOINTR`), or wait with a time-out.
        nr::__NR_futex => matches!(
            context.rsi as u32 & !(nr::FUTEX_PRIVATE_FLAG | nr::FUTEX_CLOCK_REALTIME),
            nr::FUTEX_WAIT | nr::FUTEX_WAIT_BITSET
        ),
        nr::__NR_recvmmsg | nr::__NR_recvfrom | nr::__NR_recvmsg | nr::__NR_sendto | nr::__NR_sendmsg => true,
        nr::__NR_accept | nr::__NR_accept4 | nr::__NR_connect | nr::__NR_ioctl | nr::__NR_vmsplice | nr::__NR_sendfile => true,
        _ => ends_without_restart(number) && !ends_for_any_signal(number),
    }
}

/// Whether there is an instruction at an address that makes a system call.
fn is_call_at(address: u64) -> bool {
    let mut code = [0u64];
    copy_from(address, &mut code) > 0 && code[0].to_le_bytes().starts_with(&SYSCALL_INSTRUCTION)
}

/// Whether a call that is about to be made may wait, so that a program with handlers is ready for its `EINTR`. Of those that
/// hardly ever do, it is not.
fn may_wait(context: &SigContext) -> bool {
    let (fd, flags) = (context.rdi as i32, context.r10 as u32);
    match context.rax as u32 {
        nr::__NR_read | nr::__NR_readv | nr::__NR_write | nr::__NR_writev => !is_on_disk(fd),
        nr::__NR_wait4 => context.rdx as u32 & nr::WNOHANG == 0,
        nr::__NR_waitid => flags & nr::WNOHANG == 0,
        nr::__NR_recvfrom | nr::__NR_sendto => flags & net::MSG_DONTWAIT == 0,
        nr::__NR_recvmsg | nr::__NR_sendmsg => context.rdx as u32 & net::MSG_DONTWAIT == 0,
        nr::__NR_flock => context.rsi as u32 & nr::LOCK_NB == 0,
        nr::__NR_fcntl => matches!(context.rsi as u32, nr::F_SETLKW | nr::F_OFD_SETLKW),
        nr::__NR_futex | nr::__NR_accept | nr::__NR_accept4 | nr::__NR_mq_timedsend | nr::__NR_mq_timedreceive => true,
        _ => false,
    }
}

/// Whether a descriptor is a file or device that is never waited for interruptibly.
fn is_on_disk(fd: i32) -> bool {
    matches!(call::file_kind(fd), Some(nr::S_IFREG | nr::S_IFDIR | nr::S_IFBLK))
}

/// What a thread that is restored does last, before it goes on with its frame: its image may hold a call that is to be made
/// again, and a signal that ends it may have come in the meantime, such as a timer's.
///
/// # Safety
/// As for [`end_if_signalled`].
pub unsafe extern "C" fn on_leave(frame: *mut UContext) {
    // SAFETY: the caller's promise.
    unsafe { end_if_signalled(frame) };
}
