//! Whether a call that waits would return at once: then a signal does not end it. The kernel too looks for what is waited for first, and for signals only
//! before it waits.

use ckpt_sys::sigframe::SigContext;
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;

/// Whether the call that a thread is about to make, with these registers, has what it waits for.
pub fn returns_at_once(context: &SigContext) -> bool {
    let SigContext { rax, rdi, rsi, rdx, r10, .. } = *context;
    match rax as u32 {
        nr::__NR_wait4 => {
            let (kind, id) = match rdi as i32 {
                -1 => (nr::P_ALL, 0),
                0 => (nr::P_PGID, 0),
                group @ i32::MIN..0 => (nr::P_PGID, group.unsigned_abs()),
                pid => (nr::P_PID, pid.unsigned_abs()),
            };
            ends_wait(kind, id, rdx as u32 | nr::WEXITED)
        }
        nr::__NR_waitid => ends_wait(rdi as u32, rsi as u32, r10 as u32),
        nr::__NR_read
        | nr::__NR_readv
        | nr::__NR_recvfrom
        | nr::__NR_recvmsg
        | nr::__NR_recvmmsg
        | nr::__NR_accept
        | nr::__NR_accept4
        | nr::__NR_mq_timedreceive
        | nr::__NR_epoll_wait
        | nr::__NR_epoll_pwait
        | nr::__NR_epoll_pwait2 => {
            let mut one = nr::pollfd { fd: rdi as i32, events: nr::POLLIN as i16, revents: 0 };
            has_events((&raw mut one) as u64, 1)
        }
        // The program expects this call to write there.
        nr::__NR_poll | nr::__NR_ppoll => has_events(rdi, rsi),
        _ => false,
    }
}

/// Whether a socket has a peer.
pub fn is_connected(fd: i32) -> bool {
    let mut name = [0u8; 128];
    let mut len = size_of_val(&name) as u32;
    // SAFETY: the name is writable for its length.
    unsafe { syscall!(nr::__NR_getpeername, fd, name.as_mut_ptr(), &raw mut len) }.is_ok()
}

/// Whether a wait for a child would end: it finds one, which stays to be waited for, or learns that there is none to wait for.
fn ends_wait(kind: u32, id: u32, options: u32) -> bool {
    let mut info = [0i32; 32];
    // SAFETY: a siginfo of 128 bytes is written, and nothing else changes.
    let asked = unsafe { syscall!(nr::__NR_waitid, kind, id, info.as_mut_ptr(), options | nr::WNOHANG | nr::WNOWAIT, 0) };
    asked.is_err() || info[0] != 0
}

fn has_events(fds: u64, count: u64) -> bool {
    // SAFETY: the kernel checks the addresses; it writes to what a call to poll may write to.
    unsafe { syscall!(nr::__NR_poll, fds, count, 0) }.is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_wait_is_ended() {
        let call = |number: u32, arguments: [u64; 4]| {
            let [rdi, rsi, rdx, r10] = arguments;
            returns_at_once(&SigContext { rax: number.into(), rdi, rsi, rdx, r10, ..SigContext::default() })
        };
        // There is no child with this number: ECHILD.
        assert!(call(nr::__NR_wait4, [1, 0, 0, 0]));
        assert!(!call(nr::__NR_pause, [0; 4]));
        let mut zero = nr::pollfd { fd: 0, events: 0, revents: 0 };
        assert!(!call(nr::__NR_poll, [(&raw mut zero) as u64, 0, 0, 0]));
    }
}
