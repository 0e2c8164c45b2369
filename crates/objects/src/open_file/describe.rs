//! A description in words.

use std::fmt::Write as _;
use std::time::Duration;

use super::{OpenFile, OpenFileKind};
use crate::{Bytes, Objects};

/// A description in a few words. Names in it are as the job gave them: a terminal may take them for control sequences.
#[must_use]
pub fn describe(objects: Objects<'_>, file: &OpenFile) -> String {
    if let Some(number) = file.inherited {
        let stream = ["standard input", "standard output", "standard error"].get(usize::from(number));
        return format!("the launcher's {}", stream.unwrap_or(&"own descriptor"));
    }
    let position = file.position;
    match &file.kind {
        OpenFileKind::Regular(regular) => format!("{}, at {position} of {} bytes", regular.path, regular.size),
        OpenFileKind::Deleted(deleted) => format!("{} (deleted), at {position} of {} bytes", deleted.path, deleted.size),
        OpenFileKind::RemovedDirectory(removed) => format!("removed directory {}", removed.path),
        OpenFileKind::Directory { path } => format!("directory {path}"),
        OpenFileKind::Device { path, .. } => format!("device {path}"),
        OpenFileKind::Pipe { pipe: number } => match objects.pipes.get(*number as usize) {
            Some(pipe) => {
                let bytes: usize = pipe.packets.iter().map(Vec::len).sum();
                let path = pipe.path.as_ref().map_or("pipe".to_owned(), |path| format!("named pipe {path}"));
                format!("{path} [{number}], {bytes} bytes in it")
            }
            None => format!("pipe [{number}]"),
        },
        OpenFileKind::SharedMemory { object } => match objects.shared_memory.get(*object as usize) {
            Some(memory) => format!("shared memory {} [{object}], {}", memory.kind, Bytes(memory.size)),
            None => format!("shared memory [{object}]"),
        },
        OpenFileKind::Path { path } => format!("place {path}"),
        OpenFileKind::Proc { path } => path.to_string(),
        OpenFileKind::Epoll(epoll) => format!("epoll instance, {} registrations", epoll.registrations.len()),
        OpenFileKind::Eventfd(eventfd) => {
            format!("eventfd, count {}{}", eventfd.count, if eventfd.semaphore { ", semaphore" } else { "" })
        }
        OpenFileKind::Timerfd(timer) => {
            let mut text = "timerfd".to_owned();
            if timer.remaining_ns > 0 {
                let left = humantime::format_duration(Duration::from_millis(timer.remaining_ns / 1_000_000));
                let _ = write!(text, ", {left} left");
            }
            format!("{text}, {} expirations not read", timer.ticks)
        }
        OpenFileKind::Signalfd(signalfd) => format!("signalfd, {} signals", signalfd.mask.count_ones()),
        OpenFileKind::Inotify(inotify) => {
            format!("inotify instance, {} watches, {} bytes not read", inotify.watches.len(), inotify.pending)
        }
        OpenFileKind::PtyMaster { pty, .. } => format!("master of pseudo-terminal {}", pty_name(objects, *pty)),
        OpenFileKind::PtySlave { pty, hung_up, .. } => {
            format!("pseudo-terminal {}{}", pty_name(objects, *pty), if *hung_up { ", hung up" } else { "" })
        }
        OpenFileKind::OutsideTerminal { path } => format!("the launcher's terminal, as {path}"),
        OpenFileKind::Socket { socket } => match objects.sockets.get(*socket as usize) {
            Some(socket) => socket.summary(),
            None => format!("socket [{socket}]"),
        },
        OpenFileKind::Mqueue { queue } => {
            let queue = objects.mqueues.get(*queue as usize);
            let name = queue.map_or_else(String::new, |queue| queue.name.to_string());
            format!("POSIX message queue {name}, {} messages", queue.map_or(0, |queue| queue.messages.len()))
        }
        OpenFileKind::Pidfd(pidfd) => match pidfd.process {
            Some(pid) => format!("pidfd of process {pid}"),
            None => "pidfd of a process that has ended".to_owned(),
        },
    }
}

fn pty_name(objects: Objects<'_>, pty: u32) -> String {
    let number = objects.terminals.ptys.get(pty as usize).and_then(|pty| pty.number);
    number.map_or_else(|| "without a number".to_owned(), |number| number.to_string())
}
