//! Which system calls wait, and what a signal does to them (signal(7)).

use ckpt_sys::blocked;
use ckpt_sys::sigframe::SigContext;
use linux_raw_sys::{general as nr, net};

use crate::call;

/// Whether a call may end with `EINTR` when a handler runs, whatever `SA_RESTART` says (signal(7)).
pub fn ends_for_any_signal(number: u32) -> bool {
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
pub fn ends_without_restart(number: u32) -> bool {
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

/// Whether the registers are those of a thread that is about to make a call of those that the kernel makes again for a handler
/// with `SA_RESTART` (`ERESTARTSYS`).
pub fn may_be_restarted(context: &SigContext) -> bool {
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

/// Whether a call that is about to be made may wait, so that a program with handlers is ready for its `EINTR`. Programs are
/// not ready for it where a call hardly ever waits.
pub fn may_wait(context: &SigContext) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart_by_what_a_handler_does_to_them() {
        assert!(ends_for_any_signal(nr::__NR_poll) && ends_for_any_signal(nr::__NR_pause));
        assert!(!ends_for_any_signal(nr::__NR_read) && ends_without_restart(nr::__NR_read));
        assert!(!ends_without_restart(nr::__NR_getpid));
    }

    fn about_to_call(number: u32) -> SigContext {
        SigContext { rax: number.into(), ..SigContext::default() }
    }

    #[test]
    fn some_calls_are_restarted_by_the_kernel() {
        assert!(may_be_restarted(&about_to_call(nr::__NR_read)) && !may_be_restarted(&about_to_call(nr::__NR_poll)));
        let futex = |command: u32| SigContext { rsi: command.into(), ..about_to_call(nr::__NR_futex) };
        assert!(may_be_restarted(&futex(nr::FUTEX_WAIT | nr::FUTEX_PRIVATE_FLAG)) && !may_be_restarted(&futex(nr::FUTEX_WAKE)));
        assert!(!may_be_restarted(&SigContext { rax: u64::MAX, ..SigContext::default() }));
    }

    #[test]
    fn flags_say_whether_a_call_waits() {
        let wait = about_to_call(nr::__NR_wait4);
        assert!(may_wait(&wait) && !may_wait(&SigContext { rdx: nr::WNOHANG.into(), ..wait }));
        let receive = about_to_call(nr::__NR_recvfrom);
        assert!(may_wait(&receive) && !may_wait(&SigContext { r10: net::MSG_DONTWAIT.into(), ..receive }));
        assert!(!may_wait(&about_to_call(nr::__NR_getpid)));
    }
}
