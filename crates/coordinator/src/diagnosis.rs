//! Why a process has no agent, in words.

use std::fs::File;
use std::os::unix::fs::FileExt;

use ckpt_objects::observe::proc_path;
use ckpt_objects::process::is_secure;
use goblin::container::{Container, Ctx, Endian};
use goblin::elf::program_header::{PT_DYNAMIC, PT_INTERP};
use goblin::elf::{Elf, ProgramHeader};

use crate::ptrace::AgentCode;
use crate::tree::Member;

/// What keeps the agent out of a process, and what the user can do.
pub fn why_no_agent(member: &Member, signal: i32) -> String {
    let head = head_of_program(member);
    match program_kind(&head) {
        Kind::Bits32 => {
            return "is a 32-bit program, which cannot be checkpointed; use a 64-bit build of it".to_owned();
        }
        Kind::Static if is_static(member) && AgentCode::find(member.pid).is_some() => {
            return "interprets another program, as valgrind does, and no agent can be in it; run that program without it"
                .to_owned();
        }
        Kind::Static if is_static(member) => {
            return "is statically linked, so the agent cannot be loaded into it; use a dynamically linked build of it"
                .to_owned();
        }
        Kind::Static | Kind::Dynamic | Kind::Unknown => (),
    }
    if member.status.caught().contains(signal) {
        return match member.status.state() {
            'T' | 't' => "is stopped; let it go on with `kill -CONT`".to_owned(),
            _ => "blocks the checkpoint signal in all its threads; it cannot be checkpointed while it does".to_owned(),
        };
    }
    if is_secure(member.pid) == Some(true) || head.is_empty() {
        return "is a set-user-id program or one with file capabilities, into which the agent is not loaded; run it without them"
            .to_owned();
    }
    "runs without the agent: it was started with an environment of its own, or has put signal handling back; start it through libc's exec".to_owned()
}

/// Whether a process runs a static program, in which no agent is, whatever signals it catches: Go's runtime, valgrind and qemu catch them all.
/// An agent may well be mapped there, but then it is part of a program that this one interprets.
pub fn is_static(member: &Member) -> bool {
    // The dynamic loader has no loader either, and runs programs that are given to it as an argument.
    matches!(program_kind(&head_of_program(member)), Kind::Static) && !is_library(member)
}

/// Whether a process's program has a name for the dynamic loader (`DT_SONAME`), as libraries and the loader itself do.
fn is_library(member: &Member) -> bool {
    const DT_SONAME: u64 = 14;
    let Ok(program) = File::open(proc_path(member.pid, "exe")) else { return false };
    let Some(dynamic) = headers(&head_of_program(member)).into_iter().find(|header| header.p_type == PT_DYNAMIC) else {
        return false;
    };
    let mut section = vec![0; usize::try_from(dynamic.p_filesz).unwrap_or(0).min(65536)];
    program.read_exact_at(&mut section, dynamic.p_offset).is_ok()
        && section.chunks_exact(16).any(|entry| entry[..8] == DT_SONAME.to_le_bytes())
}

/// The first bytes of a process's program; none where it may not be read.
fn head_of_program(member: &Member) -> Vec<u8> {
    let mut head = vec![0; 4096];
    let read = File::open(proc_path(member.pid, "exe")).and_then(|file| file.read_at(&mut head, 0));
    head.truncate(read.unwrap_or(0));
    head
}

enum Kind {
    Bits32,
    Static,
    Dynamic,
    Unknown,
}

fn program_kind(head: &[u8]) -> Kind {
    let Ok(header) = Elf::parse_header(head) else { return Kind::Unknown };
    if header.e_ident[4] == 1 {
        return Kind::Bits32;
    }
    match headers(head) {
        headers if headers.is_empty() => Kind::Unknown,
        headers if headers.iter().any(|header| header.p_type == PT_INTERP) => Kind::Dynamic,
        _ => Kind::Static,
    }
}

/// The program headers of a 64-bit program, which follow the ELF header in every one that a linker made.
fn headers(head: &[u8]) -> Vec<ProgramHeader> {
    let context = Ctx::new(Container::Big, Endian::Little);
    let Ok(header) = Elf::parse_header(head) else { return Vec::new() };
    ProgramHeader::parse(head, header.e_phoff as usize, usize::from(header.e_phnum), context).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_how_a_program_is_linked() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(matches!(program_kind(&own[..4096]), Kind::Dynamic));
        let mut narrow = own[..4096].to_vec();
        narrow[4] = 1;
        assert!(matches!(program_kind(&narrow), Kind::Bits32 | Kind::Unknown));
        assert!(matches!(program_kind(b"#!/bin/sh\n"), Kind::Unknown));
    }
}
