//! The machine code around a system call: which call it was, where nothing else tells.

use ckpt_sys::sigframe::SigContext;
use ckpt_sys::syscall;
use ckpt_wire::PAGE_SIZE;
use linux_raw_sys::general as nr;

use crate::call;

/// The `syscall` instruction.
pub const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Its length in bytes.
pub const SYSCALL_LEN: u64 = SYSCALL.len() as u64;

/// Bytes of code before a system call in which its number is looked for.
const BEFORE: usize = 40;
/// Bytes of code before the return from a function, in which the call of the function is looked for, and its number.
const BEFORE_RETURN: usize = 64;
/// Words on the stack among which the return addresses of such functions are looked for.
const STACK_WORDS: usize = 48;
/// How many such functions may be around a system call.
const CALLERS: usize = 3;

/// Whether the registers are those with which a system call returns: it leaves the address that it returns to in `rcx` (syscall in Intel's
/// manual).
pub fn has_returned(context: &SigContext) -> bool {
    context.rcx == context.rip && is_call_at(context.rip.wrapping_sub(SYSCALL_LEN))
}

/// Whether there is an instruction at an address that makes a system call.
pub fn is_call_at(address: u64) -> bool {
    let mut code = [0u64];
    copy_from(address, &mut code) > 0 && code[0].to_le_bytes().starts_with(&SYSCALL)
}

/// The number of the system call that has just returned, as the code before it tells, if it is one that is looked for.
///
/// A function that makes any call (`syscall`; the one that makes calls in which a thread can be cancelled) takes the number from its caller.
pub fn number_before(context: &SigContext, is_looked_for: fn(u32) -> bool) -> Option<u32> {
    let mut code = [0u8; BEFORE];
    let first = context.rip.wrapping_sub(BEFORE as u64);
    // A system call has just returned to `rip`, so the code before it is there; what lies before the start of its page need not
    // be.
    let page = context.rip.wrapping_sub(SYSCALL_LEN) & !(PAGE_SIZE as u64 - 1);
    let skip = usize::try_from(page.saturating_sub(first)).unwrap_or(0).min(BEFORE - SYSCALL.len());
    // SAFETY: from the start of the page that holds the system call instruction the code is mapped.
    unsafe {
        core::ptr::copy_nonoverlapping((first + skip as u64) as *const u8, code.as_mut_ptr().add(skip), BEFORE - skip);
    }
    let number = match loaded(&code)? {
        Loaded::Number(number) => Some(number),
        Loaded::Given => number_from_callers(context.rsp, is_looked_for),
    };
    number.filter(|number| is_looked_for(*number))
}

/// How the number of a system call got into its register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loaded {
    /// The code loads this one.
    Number(u32),
    /// The code moves it there from another register or from memory.
    Given,
}

/// What code that ends with a system call does to the register with its number.
///
/// The nearest `mov eax, NUMBER` loads the number. Compilers put other moves between the two, so any place shortly before is looked at.
fn loaded(code: &[u8]) -> Option<Loaded> {
    if !code.ends_with(&SYSCALL) {
        return None;
    }
    let (number, at) = match last_load(code, 0xb8) {
        Some((number, at)) => (Some(number), at),
        None => (None, 0),
    };
    // `mov rax, REGISTER` or `mov rax, [rsp or rbp + …]` after that.
    let is_given = code.get(at..)?.windows(3).any(|window| match *window {
        [0x48 | 0x4c, 0x89, operands] => operands & 0o307 == 0o300,
        [0x48, 0x8b, operands] => matches!(operands, 0x44 | 0x45 | 0x84 | 0x85),
        _ => false,
    });
    if is_given { Some(Loaded::Given) } else { number.map(Loaded::Number) }
}

/// The number that a function which makes any call was given. Only numbers that are looked for are believed.
fn number_from_callers(sp: u64, is_looked_for: fn(u32) -> bool) -> Option<u32> {
    let mut stack = [0u64; STACK_WORDS];
    let words = copy_from(sp, &mut stack) / size_of::<u64>();
    let stack = stack.get(..words)?;
    let returns = stack.iter().zip(1..).filter_map(|(&word, next)| {
        let mut words = [0u64; BEFORE_RETURN / size_of::<u64>()];
        if copy_from(word.wrapping_sub(BEFORE_RETURN as u64), &mut words) < BEFORE_RETURN {
            return None;
        }
        let mut code = [0u8; BEFORE_RETURN];
        for (to, from) in code.iter_mut().zip(words.iter().flat_map(|word| word.to_le_bytes())) {
            *to = from;
        }
        ends_with_call(&code).then(|| (code, stack.get(next).copied().unwrap_or(0)))
    });
    returns
        .take(CALLERS)
        .find_map(|(code, above)| given(&code, above).into_iter().flatten().find(|number| is_looked_for(*number)))
}

/// Whether code ends with the call of a function: of an address, of one that lies at an address, or in a register.
fn ends_with_call(code: &[u8; BEFORE_RETURN]) -> bool {
    matches!(code, [.., 0xe8, _, _, _, _] | [.., 0xff, 0x15, _, _, _, _] | [.., 0xff, 0xd0..=0xd7])
}

/// The numbers that code which ends with the call of a function may have given it: as its seventh argument, which is pushed and lies
/// `above` the return address, or as its first.
fn given(code: &[u8; BEFORE_RETURN], above: u64) -> [Option<u32>; 2] {
    let pushes = |window: &[u8]| match *window {
        [0x6a, number, ..] => u64::from(number) == above,
        [0x68, a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])) == above,
        _ => false,
    };
    let pushed = code.windows(5).any(pushes).then_some(above as u32);
    // After another call before it, the register holds something else.
    let first = last_load(code, 0xbf).and_then(|(number, at)| {
        let calls_between = code.get(at..code.len() - 5)?.contains(&0xe8);
        (!calls_between).then_some(number)
    });
    [pushed, first]
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

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn code(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn the_nearest_number_that_is_loaded_counts() {
        let code = code(&[&[0xb8, 1, 0, 0, 0], &[0x90], &[0xb8, 7, 0, 0, 0], &[0x0f, 0x1f, 0], &SYSCALL]);
        assert_eq!(loaded(&code), Some(Loaded::Number(7)));
        assert_eq!(loaded(&code[..code.len() - 1]), None);
    }

    #[test]
    fn a_number_that_is_moved_is_the_callers() {
        // mov rax, rdi; mov rax, [rsp + 8]
        for moved in [&[0x48, 0x89, 0xf8][..], &[0x48, 0x8b, 0x44, 0x24, 8]] {
            assert_eq!(loaded(&code(&[&[0xb8, 7, 0, 0, 0], moved, &SYSCALL])), Some(Loaded::Given));
        }
        assert_eq!(loaded(&SYSCALL), None);
    }

    fn before_call(parts: &[&[u8]]) -> [u8; BEFORE_RETURN] {
        let end = code(&[&code(parts), &[0xe8, 1, 2, 3, 4]]);
        let mut code = [0x90; BEFORE_RETURN];
        code[BEFORE_RETURN - end.len()..].copy_from_slice(&end);
        code
    }

    #[test]
    fn a_function_is_given_a_number_by_push_or_in_its_first_register() {
        let pushed = before_call(&[&[0x6a, 202]]);
        assert!(ends_with_call(&pushed));
        assert_eq!((given(&pushed, 202), given(&pushed, 203)), ([Some(202), None], [None, None]));
        let first = before_call(&[&[0xbf, 35, 0, 0, 0], &[0x90]]);
        assert_eq!(given(&first, 0)[1], Some(35));
        let another_between = before_call(&[&[0xbf, 35, 0, 0, 0], &[0xe8, 0, 0, 0, 0]]);
        assert_eq!(given(&another_between, 0)[1], None);
        assert!(!ends_with_call(&[0x90; BEFORE_RETURN]));
    }

    #[test]
    fn memory_that_is_not_there_is_not_read() {
        assert!(!is_call_at(0) && !is_call_at(u64::MAX - 8));
        assert!(is_call_at(SYSCALL.as_ptr() as u64));
    }

    proptest! {
        #[test]
        fn any_bytes_are_code(bytes: [[u8; 8]; 8], len in 0usize..64, above: u64) {
            let code: [u8; BEFORE_RETURN] = bytes.concat().try_into().unwrap();
            let _ = (loaded(&code[..len]), given(&code, above), ends_with_call(&code));
        }
    }
}
