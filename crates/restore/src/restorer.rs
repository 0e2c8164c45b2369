//! The restorer: the code that runs while one address space is swapped for another, and the program that it executes.
//!
//! Between the moment when the restart's own memory is unmapped and the moment when the job's is complete, no Rust can run: no
//! stack, no thread-local storage, no libc. So all policy is worked out beforehand, as a list of *operations* of fixed size, most
//! of them system calls with all arguments known. What remains is an interpreter of 200 bytes, position independent and without a
//! stack, which executes the list. It lives with its operations and their data in one *region*, at addresses that are free before
//! the swap and after it:
//!
//! ```text
//! base         +-----------------------------------------+
//!              | code: the interpreter          r-x      |
//! + 1 page     | gate: where all processes wait rw-s     |
//! + 2 pages    | data: what calls point to, operations   |  rw-p
//!              +-----------------------------------------+
//! ```
//!
//! Every thread of the process has its own list; `clone3` is an operation that names the list of the thread it makes. The last
//! operation, [`Operations::leave`], jumps into the agent's code in the job's own memory, which unmaps the region: see
//! `ckpt_agent::leave`.
#![allow(unsafe_code, reason = "the restorer's memory and machine code")]

use std::arch::global_asm;
use std::mem::offset_of;

use ckpt_objects::deferred::{Action, Argument, Deferred, OnFailure, Purpose};
use ckpt_sys::{raw, syscall};
use linux_raw_sys::general as nr;

use crate::holes::PAGE;

/// What an operation does.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The system call `nr` with `args`.
    Call = 0,
    /// Waits until the 32-bit word at `args[0]` is at least `args[1]`.
    Wait = 1,
    /// Adds one to the 32-bit word at `args[0]`.
    Arrive = 2,
    /// Jumps to `args[4]` with `args[0..4]` in `rdi`, `rsi`, `rdx`, `rcx`.
    Leave = 3,
    /// Takes `args[1]` seconds and `args[2]` nanoseconds off the time at `args[0]`.
    Backdate = 4,
}

/// What the result of a system call must be.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Anything.
    Any = 0,
    /// Not an error, or the restart fails.
    Success = 1,
    /// Exactly `expected`, or the restart fails.
    Exactly = 2,
    /// An error is reported, and the restart goes on.
    Report = 3,
}

/// One operation. The interpreter below knows its layout.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    kind: Kind,
    check: Check,
    nr: u32,
    /// [`Purpose`].
    purpose: u32,
    args: [u64; 6],
    /// What is expected; on failure, what came.
    expected: u64,
    /// Where the thread that the call makes goes on; 0 where it makes none.
    child: u64,
    /// The thread that executes this, for the report of a failure.
    tid: i32,
    /// Keeps the layout plain.
    reserved: u32,
}

impl Operation {
    /// What the operations below are made from.
    const BLANK: Self =
        Self { kind: Kind::Call, check: Check::Any, nr: 0, purpose: 0, args: [0; 6], expected: 0, child: 0, tid: 0, reserved: 0 };
}

/// Bytes of an operation.
pub const OPERATION_SIZE: usize = size_of::<Operation>();

/// Bytes that calls and their data take in the region.
#[must_use]
pub fn room(deferred: &Deferred) -> u64 {
    (deferred.data.len() + deferred.actions.len() * OPERATION_SIZE) as u64
}

global_asm!(
    ".pushsection .text.ckpt_restorer,\"ax\",@progbits",
    ".balign 16",
    ".globl ckpt_restorer_start",
    ".globl ckpt_restorer_end",
    // rdi: the first operation. rsi: the descriptor that failures are written to.
    "ckpt_restorer_start:",
    "mov r12, rdi",
    "mov r13, rsi",
    "2:", // The next operation.
    "mov eax, [r12 + {kind}]",
    "cmp eax, {wait}",
    "je 5f",
    "cmp eax, {arrive}",
    "je 6f",
    "cmp eax, {leave}",
    "je 7f",
    "cmp eax, {backdate}",
    "je 10f",
    "mov eax, [r12 + {nr}]",
    "mov rdi, [r12 + {args}]",
    "mov rsi, [r12 + {args} + 8]",
    "mov rdx, [r12 + {args} + 16]",
    "mov r10, [r12 + {args} + 24]",
    "mov r8, [r12 + {args} + 32]",
    "mov r9, [r12 + {args} + 40]",
    "syscall",
    // A new thread begins here with its maker's registers, and 0.
    "test rax, rax",
    "jnz 3f",
    "mov rcx, [r12 + {child}]",
    "test rcx, rcx",
    "jz 3f",
    "mov r12, rcx",
    "jmp 2b",
    "3:",
    "mov ecx, [r12 + {check}]",
    "test ecx, ecx",
    "jz 4f",
    "cmp ecx, {exactly}",
    "je 8f",
    "cmp rax, -4095",
    "jb 4f",
    "9:", // It failed: write the operation with its result.
    "mov [r12 + {expected}], rax",
    "mov eax, {write_nr}",
    "mov rdi, r13",
    "mov rsi, r12",
    "mov edx, {size}",
    "syscall",
    "cmp dword ptr [r12 + {check}], {report}",
    "je 4f",
    "mov eax, {exit_group_nr}",
    "mov edi, {exit_code}",
    "syscall",
    "ud2",
    "8:",
    "cmp rax, [r12 + {expected}]",
    "jne 9b",
    "4:",
    "add r12, {size}",
    "jmp 2b",
    "5:", // Wait.
    "mov rdi, [r12 + {args}]",
    "mov edx, [rdi]",
    "cmp edx, [r12 + {args} + 8]",
    "jae 4b",
    "mov eax, {futex_nr}",
    "xor esi, esi", // FUTEX_WAIT, between processes.
    "xor r10d, r10d",
    "syscall",
    "jmp 2b",
    "6:", // Arrive.
    "mov rdi, [r12 + {args}]",
    "lock inc dword ptr [rdi]",
    "jmp 4b",
    "7:", // Leave.
    "mov rdi, [r12 + {args}]",
    "mov rsi, [r12 + {args} + 8]",
    "mov rdx, [r12 + {args} + 16]",
    "mov rcx, [r12 + {args} + 24]",
    "jmp qword ptr [r12 + {args} + 32]",
    "10:", // Backdate.
    "mov rdi, [r12 + {args}]",
    "mov rax, [r12 + {args} + 8]",
    "mov rcx, [r12 + {args} + 16]",
    "sub [rdi], rax",
    "sub [rdi + 8], rcx",
    "jns 4b",
    "add qword ptr [rdi + 8], 1000000000",
    "dec qword ptr [rdi]",
    "jmp 4b",
    "ckpt_restorer_end:",
    ".popsection",
    kind = const offset_of!(Operation, kind),
    check = const offset_of!(Operation, check),
    nr = const offset_of!(Operation, nr),
    args = const offset_of!(Operation, args),
    expected = const offset_of!(Operation, expected),
    child = const offset_of!(Operation, child),
    size = const OPERATION_SIZE,
    wait = const Kind::Wait as u32,
    arrive = const Kind::Arrive as u32,
    leave = const Kind::Leave as u32,
    backdate = const Kind::Backdate as u32,
    exactly = const Check::Exactly as u32,
    report = const Check::Report as u32,
    write_nr = const nr::__NR_write,
    futex_nr = const nr::__NR_futex,
    exit_group_nr = const nr::__NR_exit_group,
    exit_code = const FAILED_EXIT_CODE,
);

/// With what a process ends that could not be restored.
pub const FAILED_EXIT_CODE: i32 = 125;

unsafe extern "C" {
    static ckpt_restorer_start: u8;
    static ckpt_restorer_end: u8;
}

fn code() -> &'static [u8] {
    let (start, end) = (&raw const ckpt_restorer_start, &raw const ckpt_restorer_end);
    // SAFETY: both symbols are of the assembly above, one after the other in one section, which is readable and never written.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// A failed operation, as the interpreter reports it.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// The thread that executed it.
    pub tid: i32,
    /// What it was for.
    pub what: &'static str,
    /// The system call's number and arguments.
    pub nr: u32,
    /// See `nr`.
    pub args: [u64; 6],
    /// What the call returned: `-errno`, or a value that was not the expected one.
    pub result: i64,
    /// The restart went on.
    pub tolerated: bool,
}

impl Failure {
    /// Reads the report that the interpreter wrote.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != OPERATION_SIZE {
            return None;
        }
        let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        let long = |at: usize| Some(u64::from(word(at)?) | u64::from(word(at + 4)?) << 32);
        let mut args = [0; 6];
        for (i, arg) in args.iter_mut().enumerate() {
            *arg = long(offset_of!(Operation, args) + 8 * i)?;
        }
        Some(Self {
            tid: word(offset_of!(Operation, tid))?.cast_signed(),
            what: Purpose::describe(word(offset_of!(Operation, purpose))?),
            nr: word(offset_of!(Operation, nr))?,
            args,
            result: long(offset_of!(Operation, expected))?.cast_signed(),
            tolerated: word(offset_of!(Operation, check))? == Check::Report as u32,
        })
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tid, what, nr, args, result, .. } = self;
        match raw::check(*result) {
            Err(raw::Errno(errno)) => {
                write!(f, "thread {tid}: {what} failed: {}", std::io::Error::from_raw_os_error(errno))?;
            }
            Ok(value) => write!(f, "thread {tid}: {what} gave {value:#x}")?,
        }
        write!(f, " (system call {nr}:")?;
        args.iter().try_for_each(|arg| write!(f, " {arg:#x}"))?;
        f.write_str(")")
    }
}

/// The list of one thread's operations.
#[derive(Debug)]
pub struct Operations {
    tid: i32,
    list: Vec<Operation>,
}

impl Operations {
    /// An empty list for the thread `tid`.
    #[must_use]
    pub fn new(tid: i32) -> Self {
        Self { tid, list: Vec::new() }
    }

    /// Takes over the operations of another list for the same thread.
    pub fn append(&mut self, other: Self) {
        self.list.extend(other.list);
    }

    fn push(&mut self, operation: Operation, arguments: &[u64]) {
        let mut args = [0; 6];
        for (to, from) in args.iter_mut().zip(arguments) {
            *to = *from;
        }
        self.list.push(Operation { args, tid: self.tid, ..operation });
    }

    /// A system call.
    pub fn call(&mut self, purpose: Purpose, check: Check, nr: u32, args: &[u64]) {
        self.push(Operation { check, nr, purpose: purpose as u32, ..Operation::BLANK }, args);
    }

    /// A system call that must return `expected`.
    pub fn call_expecting(&mut self, purpose: Purpose, nr: u32, args: &[u64], expected: u64) {
        self.push(Operation { check: Check::Exactly, nr, purpose: purpose as u32, expected, ..Operation::BLANK }, args);
    }

    /// A `clone3` that makes thread `tid`, which executes the operations at `list`.
    pub fn clone_thread(&mut self, tid: i32, clone_args: u64, clone_args_len: u64, list: u64) {
        let (check, expected) = (Check::Exactly, u64::from(tid.cast_unsigned()));
        let purpose = Purpose::Thread as u32;
        let clone = Operation { check, nr: nr::__NR_clone3, purpose, expected, child: list, ..Operation::BLANK };
        self.push(clone, &[clone_args, clone_args_len]);
    }

    /// Waits until the word at `address` is at least `value`.
    pub fn wait(&mut self, address: u64, value: u32) {
        self.push(Operation { kind: Kind::Wait, ..Operation::BLANK }, &[address, u64::from(value)]);
    }

    /// Adds one to the word at `address`, and wakes all who wait on it.
    pub fn arrive(&mut self, address: u64) {
        self.push(Operation { kind: Kind::Arrive, ..Operation::BLANK }, &[address]);
        let everybody = i32::MAX as u64;
        self.call(Purpose::Wake, Check::Success, nr::__NR_futex, &[address, u64::from(nr::FUTEX_WAKE), everybody]);
    }

    /// Takes seconds and nanoseconds off the `struct timespec` at `address`.
    pub fn backdate(&mut self, address: u64, [seconds, nanoseconds]: [u64; 2]) {
        self.push(Operation { kind: Kind::Backdate, ..Operation::BLANK }, &[address, seconds, nanoseconds]);
    }

    /// What an object of the job has said is to be done now.
    pub fn deferred(&mut self, region: &mut Region, deferred: &Deferred) -> Result<(), RegionFull> {
        let data = region.put(&deferred.data)?;
        for action in &deferred.actions {
            match *action {
                Action::Call { purpose, on_failure, nr, args } => {
                    let check = match on_failure {
                        OnFailure::Fail => Check::Success,
                        OnFailure::Report => Check::Report,
                        OnFailure::Ignore => Check::Any,
                    };
                    let place = |argument| match argument {
                        Argument::Value(value) => value,
                        Argument::At(offset) => data + offset as u64,
                    };
                    self.call(purpose, check, nr, &args.map(place));
                }
                Action::Backdate { at, by } => self.backdate(data + at as u64, by),
            }
        }
        Ok(())
    }

    /// Leaves for the job: jumps to `to` with `args` in `rdi`, `rsi`, `rdx`, `rcx`.
    pub fn leave(&mut self, to: u64, args: [u64; 4]) {
        self.push(Operation { kind: Kind::Leave, ..Operation::BLANK }, &[args[0], args[1], args[2], args[3], to]);
    }
}

/// The memory that the restorer lives in, while it is being filled.
#[derive(Debug)]
pub struct Region {
    base: u64,
    len: u64,
    used: u64,
}

/// The region is too small for what a restart needs. It is measured beforehand, so this is a fault of the program.
#[derive(Debug, thiserror::Error)]
#[error("the restorer needs more than the {0} bytes that were set aside for it; please report this")]
pub struct RegionFull(u64);

impl Region {
    /// Offset of the gate.
    const GATE: u64 = PAGE;
    /// Offset of the data.
    const DATA: u64 = 2 * PAGE;

    /// Uses `base..base + len`, private memory that is readable, writable and zero, and moves the shared page at `gate` into it.
    ///
    /// # Safety
    /// The region must be nobody else's, and nobody may use the page at `gate` by its old address any more.
    pub unsafe fn new(base: u64, len: u64, gate: u64) -> Result<Self, raw::Errno> {
        let code = code();
        // SAFETY: the code is shorter than a page (see the tests), and the caller gives us the region.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), base as *mut u8, code.len());
            let flags = nr::MREMAP_MAYMOVE | nr::MREMAP_FIXED;
            syscall!(nr::__NR_mremap, gate, PAGE, PAGE, flags, base + Self::GATE)?;
            syscall!(nr::__NR_mprotect, base, PAGE, nr::PROT_READ | nr::PROT_EXEC)?;
        }
        Ok(Self { base, len, used: Self::DATA })
    }

    /// Where the gate is.
    #[must_use]
    pub fn gate(&self) -> u64 {
        self.base + Self::GATE
    }

    /// Where it begins.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Puts bytes in, aligned for anything; gives their address.
    pub fn put(&mut self, bytes: &[u8]) -> Result<u64, RegionFull> {
        let at = self.used.next_multiple_of(16);
        let end = at + bytes.len() as u64;
        if end > self.len {
            return Err(RegionFull(self.len));
        }
        // SAFETY: the range is inside the region, which is writable, and beyond what has been put in before.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (self.base + at) as *mut u8, bytes.len()) };
        self.used = end;
        Ok(self.base + at)
    }

    /// Puts numbers in; gives their address.
    pub fn put_words(&mut self, words: &[u64]) -> Result<u64, RegionFull> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.put(&bytes)
    }

    /// Puts a list of operations in; gives its address.
    pub fn put_operations(&mut self, operations: &Operations) -> Result<u64, RegionFull> {
        let list = &operations.list;
        // SAFETY: an operation is plain numbers without padding (see the tests), so its bytes may be read.
        let bytes = unsafe { std::slice::from_raw_parts(list.as_ptr().cast::<u8>(), size_of_val(list.as_slice())) };
        self.put(bytes)
    }

    /// Executes the list at `first`, and never comes back.
    ///
    /// # Safety
    /// The operations must be right: they end the program that calls this, in memory and in everything else.
    pub unsafe fn enter(&self, first: u64, failures: i32) -> ! {
        // SAFETY: the interpreter was copied to `base`, and takes these two arguments.
        unsafe {
            let enter: extern "C" fn(u64, i64) -> ! = std::mem::transmute(self.base as *const ());
            enter(first, i64::from(failures))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn the_interpreter_is_small_and_an_operation_has_no_padding() {
        assert!(code().len() < 300, "{} bytes", code().len());
        assert_eq!(OPERATION_SIZE, 4 * 4 + 6 * 8 + 2 * 8 + 8);
        for (i, (purpose, _)) in Purpose::ALL.iter().enumerate() {
            assert_eq!(*purpose as usize, i);
        }
    }

    fn map(len: u64, flags: u32) -> u64 {
        // SAFETY: the kernel chooses where.
        unsafe { syscall!(nr::__NR_mmap, 0, len, nr::PROT_READ | nr::PROT_WRITE, flags | nr::MAP_ANONYMOUS, u64::MAX, 0) }
            .unwrap()
    }

    /// Runs a list in a forked child; gives its wait status and what it reported.
    fn run(build: impl FnOnce(&mut Region, &mut Operations)) -> (i32, Vec<u8>, u32) {
        let gate = map(PAGE, nr::MAP_SHARED);
        // SAFETY: the page is mapped, and lives as long as the process.
        let word = unsafe { &*(gate as *const AtomicU32) };
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        // SAFETY: the child makes only system calls and simple allocations before it enters the restorer.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let base = map(64 << 10, nr::MAP_PRIVATE);
            // SAFETY: the region is fresh, and the child has no other use for the gate; the operations are the test's.
            unsafe {
                let mut region = Region::new(base, 64 << 10, gate).unwrap();
                let mut operations = Operations::new(7);
                build(&mut region, &mut operations);
                let first = region.put_operations(&operations).unwrap();
                region.enter(first, writer.as_raw_fd());
            }
        }
        drop(writer);
        let mut status = 0;
        // SAFETY: `status` lives over the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        let mut buffer = vec![0; 4096];
        let n = rustix::io::read(&reader, &mut buffer).unwrap();
        buffer.truncate(n);
        (status, buffer, word.load(Ordering::SeqCst))
    }

    #[test]
    fn calls_are_made_and_checked() {
        let (status, report, arrived) = run(|region, operations| {
            operations.arrive(region.gate());
            operations.wait(region.gate(), 1);
            operations.call(Purpose::Close, Check::Any, nr::__NR_close, &[u64::MAX]);
            operations.call_expecting(Purpose::Limit, nr::__NR_getppid, &[], u64::from(std::os::unix::process::parent_id()));
            operations.call(Purpose::Exit, Check::Success, nr::__NR_exit_group, &[33]);
        });
        assert_eq!(libc::WEXITSTATUS(status), 33);
        assert!(report.is_empty());
        assert_eq!(arrived, 1);
    }

    #[test]
    fn a_time_is_set_back() {
        for (by, seconds) in [([2, 1], 3), ([2, 4], 2), ([5, 3], 0)] {
            let (_, _, left) = run(|region, operations| {
                // From zero forward to 5 s and 3 ns, and back; nobody waits at the gate here.
                operations.backdate(region.gate(), [5u64.wrapping_neg(), 3u64.wrapping_neg()]);
                operations.backdate(region.gate(), by);
                operations.call(Purpose::Exit, Check::Any, nr::__NR_exit_group, &[0]);
            });
            assert_eq!(left, seconds);
        }
    }

    #[test]
    fn a_failure_says_what_failed() {
        let (status, report, _) = run(|_, operations| {
            operations.call(Purpose::Seal, Check::Report, nr::__NR_close, &[u64::MAX]);
            operations.call(Purpose::Close, Check::Success, nr::__NR_close, &[u64::MAX]);
            operations.call(Purpose::Exit, Check::Success, nr::__NR_exit_group, &[0]);
        });
        assert_eq!(libc::WEXITSTATUS(status), FAILED_EXIT_CODE);
        assert_eq!(report.len(), 2 * OPERATION_SIZE);
        let first = Failure::parse(&report[..OPERATION_SIZE]).unwrap();
        let second = Failure::parse(&report[OPERATION_SIZE..]).unwrap();
        assert!(first.tolerated && !second.tolerated);
        assert_eq!(second.result, -9);
        assert!(second.to_string().starts_with("thread 7: closing a descriptor failed: Bad file descriptor"), "{second}");
    }

    #[test]
    fn a_thread_executes_its_own_list() {
        let (status, _, arrived) = run(|region, operations| {
            let mut other = Operations::new(8);
            other.arrive(region.gate());
            other.call(Purpose::Exit, Check::Any, nr::__NR_exit, &[0]);
            let list = region.put_operations(&other).unwrap();
            // CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, no stack: neither uses one.
            let flags = u64::from(nr::CLONE_VM | nr::CLONE_SIGHAND | nr::CLONE_THREAD);
            let args = region.put_words(&[flags, 0, 0, 0, 0, 0, 0, 0]).unwrap();
            let clone = Operation { check: Check::Success, nr: nr::__NR_clone3, child: list, ..Operation::BLANK };
            operations.push(clone, &[args, 64]);
            operations.wait(region.gate(), 1);
            operations.call(Purpose::Exit, Check::Any, nr::__NR_exit_group, &[4]);
        });
        assert_eq!(libc::WEXITSTATUS(status), 4);
        assert_eq!(arrived, 1);
    }
}
