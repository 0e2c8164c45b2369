//! What is known of a call before it is made again.

use ckpt_sys::sigframe::SigContext;
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;

/// Whether the wait for a child that a thread is about to make, with these registers, can only fail: no child is left to wait for. A signal does not end
/// it then.
///
/// One that would find a child is ended: the handler runs before the call is made again, and may take the child.
pub fn has_nobody_to_wait_for(context: &SigContext) -> bool {
    let SigContext { rax, rdi, rsi, rdx, r10, .. } = *context;
    match rax as u32 {
        nr::__NR_wait4 => {
            let (kind, id) = match rdi as i32 {
                -1 => (nr::P_ALL, 0),
                0 => (nr::P_PGID, 0),
                group @ i32::MIN..0 => (nr::P_PGID, group.unsigned_abs()),
                pid => (nr::P_PID, pid.unsigned_abs()),
            };
            fails(kind, id, rdx as u32 | nr::WEXITED)
        }
        nr::__NR_waitid => fails(rdi as u32, rsi as u32, r10 as u32),
        _ => false,
    }
}

fn fails(kind: u32, id: u32, options: u32) -> bool {
    // SAFETY: no address is passed, and a child that is found stays to be waited for.
    unsafe { syscall!(nr::__NR_waitid, kind, id, 0, options | nr::WNOHANG | nr::WNOWAIT, 0) }.is_err()
}

/// Whether a socket has a peer.
pub fn is_connected(fd: i32) -> bool {
    let mut name = [0u8; 128];
    let mut len = size_of_val(&name) as u32;
    // SAFETY: the name is writable for its length.
    unsafe { syscall!(nr::__NR_getpeername, fd, name.as_mut_ptr(), &raw mut len) }.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_for_nobody_is_known() {
        let context = |number: u32| SigContext { rax: number.into(), rdi: 1, ..SigContext::default() };
        // There is no child with this number.
        assert!(has_nobody_to_wait_for(&context(nr::__NR_wait4)));
        assert!(!has_nobody_to_wait_for(&context(nr::__NR_pause)));
    }
}
