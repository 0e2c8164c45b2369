//! Transfers that a signal cut short: a blocking `write` that waits for room in a pipe returns what it has written so far as soon
//! as any handler runs (`pipe_write` in fs/pipe.c, `unix_stream_sendmsg`, `tcp_sendmsg_locked`, `n_tty_write`), and few programs
//! expect that from a signal that they know nothing of. So the thread goes on in [`finish`], which transfers the rest and returns
//! the sum to the program.

use core::mem::offset_of;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicU32, AtomicU64};

use ckpt_sys::sigframe::SigContext;
use ckpt_sys::syscall;
use linux_raw_sys::net::{MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, SO_TYPE, SOCK_STREAM, SOL_SOCKET};
use linux_raw_sys::{general as nr, ioctl};

use crate::{call, code};

/// The most that one call transfers (`MAX_RW_COUNT` in include/linux/fs.h).
const MOST: u64 = 0x7fff_f000;
/// Flags of `recv` with which a second call would not go on where the first ended.
const NOT_IN_TURN: u32 = MSG_PEEK | MSG_TRUNC | MSG_OOB | MSG_ERRQUEUE;
/// `MSG_ZEROCOPY` (include/linux/socket.h): each call is confirmed.
const MSG_ZEROCOPY: u32 = 0x400_0000;
/// How many threads can be amid such a transfer at once; those beyond see it cut short.
const SLOTS: usize = 512;

/// One transfer that [`finish`] goes on with, and the registers that the program is to find unchanged.
#[repr(C)]
struct Transfer {
    /// 1 while a thread uses it.
    used: AtomicU32,
    /// The system call.
    number: AtomicU32,
    /// How many bytes are transferred.
    done: AtomicU64,
    /// Where the program's call returns to.
    pc: AtomicU64,
    rsi: AtomicU64,
    rdx: AtomicU64,
    r9: AtomicU64,
}

impl Transfer {
    const fn new() -> Self {
        Self {
            used: AtomicU32::new(0),
            number: AtomicU32::new(0),
            done: AtomicU64::new(0),
            pc: AtomicU64::new(0),
            rsi: AtomicU64::new(0),
            rdx: AtomicU64::new(0),
            r9: AtomicU64::new(0),
        }
    }
}

static TRANSFERS: [Transfer; SLOTS] = [const { Transfer::new() }; SLOTS];

/// Where a thread goes on with a transfer.
///
/// In: the registers of the system call that transfers the rest, and `r9`, which it does not look at, with the [`Transfer`]. The
/// call may itself be cut short, by a signal of the program's own; then the program gets to know how far it came, and so it does
/// when the call fails. `rcx` and `r11` are free: a system call changes them.
#[unsafe(naked)]
unsafe extern "C" fn finish() -> ! {
    core::arch::naked_asm!(
        // For unwinders: the frame is the program's. The transfer (DW_OP_breg9) holds where the program goes on, and its rdx (1), rsi (4)
        // and r9.
        ".cfi_startproc",
        ".cfi_def_cfa rsp, 0",
        ".cfi_escape 0x10, 16, 2, 0x79, {pc}",
        ".cfi_escape 0x10, 1, 2, 0x79, {rdx}",
        ".cfi_escape 0x10, 4, 2, 0x79, {rsi}",
        ".cfi_escape 0x10, 9, 2, 0x79, {r9}",
        "syscall",
        "xor ecx, ecx",
        "test rax, rax",
        "cmovs rax, rcx",
        "add rax, [r9 + {done}]",
        "mov rsi, [r9 + {rsi}]",
        "mov rdx, [r9 + {rdx}]",
        "mov rcx, [r9 + {pc}]",
        "mov r11, [r9 + {r9}]",
        "mov dword ptr [r9 + {used}], 0",
        "mov r9, r11",
        "jmp rcx",
        ".cfi_endproc",
        done = const offset_of!(Transfer, done),
        rsi = const offset_of!(Transfer, rsi),
        rdx = const offset_of!(Transfer, rdx),
        pc = const offset_of!(Transfer, pc),
        r9 = const offset_of!(Transfer, r9),
        used = const offset_of!(Transfer, used),
    )
}

/// The address of the system call instruction of [`finish`].
fn instruction() -> u64 {
    finish as *const () as u64
}

/// The transfer that a thread goes on with, and whose system call has just returned.
fn of(context: &SigContext) -> Option<&'static Transfer> {
    let is_in_finish = context.rip == instruction() + code::SYSCALL_LEN;
    is_in_finish.then(|| TRANSFERS.iter().find(|transfer| core::ptr::from_ref(*transfer) as u64 == context.r9))?
}

/// The number of the system call that has just returned in [`finish`].
pub fn number(context: &SigContext) -> Option<u32> {
    of(context).map(|transfer| transfer.number.load(Relaxed))
}

/// Whether a call of this number may be cut short.
pub fn may_be_cut_short(number: u32) -> bool {
    matches!(number, nr::__NR_write | nr::__NR_sendto | nr::__NR_recvfrom)
}

/// Has a thread transfer the rest, if the system call that has just returned was to transfer more. Whether it does.
///
/// # Safety
/// The registers must be those with which a call of this `number` has just returned, and be given to the thread.
pub unsafe fn go_on(context: &mut SigContext, number: u32) -> bool {
    let done = context.rax;
    if done.cast_signed() <= 0 || done >= context.rdx || context.rdx > MOST || !is_in_turn(context, number) {
        return false;
    }
    if let Some(transfer) = of(context) {
        transfer.done.fetch_add(done, Relaxed);
    } else {
        let is_free = |transfer: &&Transfer| transfer.used.compare_exchange(0, 1, AcqRel, Acquire).is_ok();
        let Some(transfer) = TRANSFERS.iter().find(is_free) else { return false };
        transfer.number.store(number, Relaxed);
        transfer.done.store(done, Relaxed);
        transfer.pc.store(context.rip, Relaxed);
        transfer.rsi.store(context.rsi, Relaxed);
        transfer.rdx.store(context.rdx, Relaxed);
        transfer.r9.store(context.r9, Relaxed);
        context.r9 = core::ptr::from_ref(transfer) as u64;
    }
    context.rsi += done;
    context.rdx -= done;
    context.rip = instruction();
    context.rax = u64::from(number);
    true
}

/// Whether what one call has left can be transferred by another: in a stream. A call on anything else is not cut short, or not by
/// a signal.
fn is_in_turn(context: &SigContext, number: u32) -> bool {
    let fd = context.rdi as i32;
    let flags = context.r10 as u32;
    // With an address, `r9` is its length.
    let connected = context.r8 == 0;
    match number {
        nr::__NR_write => is_pipe_or_terminal(fd) || is_stream(fd),
        nr::__NR_sendto => connected && flags & MSG_ZEROCOPY == 0 && is_stream(fd),
        nr::__NR_recvfrom => connected && flags & MSG_WAITALL != 0 && flags & NOT_IN_TURN == 0 && is_stream(fd),
        _ => false,
    }
}

fn is_pipe_or_terminal(fd: i32) -> bool {
    match call::file_kind(fd) {
        Some(nr::S_IFIFO) => true,
        Some(nr::S_IFCHR) => {
            let mut size = [0u16; 4];
            // SAFETY: the call writes a `winsize`, four numbers of this size.
            unsafe { syscall!(nr::__NR_ioctl, fd, ioctl::TIOCGWINSZ, size.as_mut_ptr()) }.is_ok()
        }
        _ => false,
    }
}

fn is_stream(fd: i32) -> bool {
    let (mut form, mut len) = (0u32, size_of::<u32>() as u32);
    // SAFETY: the option's value is a number of this length.
    let got = unsafe { syscall!(nr::__NR_getsockopt, fd, SOL_SOCKET, SO_TYPE, &raw mut form, &raw mut len) };
    got.is_ok() && form == SOCK_STREAM
}
