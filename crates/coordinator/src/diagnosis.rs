//! Why a process has no agent, in words.

use std::fs::File;
use std::os::unix::fs::FileExt;

use ckpt_objects::observe::{proc_path, read_proc};
use goblin::elf::Elf;
use goblin::elf::program_header::PT_INTERP;

use crate::tree::Member;

/// `AT_SECURE` of the auxiliary vector.
const AT_SECURE: u64 = 23;

/// What keeps the agent out of a process, and what the user can do.
pub fn why_no_agent(member: &Member, signal: i32) -> String {
    let bit = 1u64 << (signal - 1);
    if member.status.set("SigCgt") & bit != 0 {
        return match member.status.state() {
            'T' | 't' => "is stopped; let it go on with `kill -CONT`".to_owned(),
            _ => "blocks the checkpoint signal in all its threads; it cannot be checkpointed while it does".to_owned(),
        };
    }
    let mut head = vec![0; 4096];
    let program = File::open(proc_path(member.pid, "exe"));
    let read = program.and_then(|file| file.read_at(&mut head, 0));
    head.truncate(read.unwrap_or(0));
    match program_kind(&head) {
        Kind::Bits32 => {
            return "is a 32-bit program, which cannot be checkpointed; use a 64-bit build of it".to_owned();
        }
        Kind::Static => {
            return "is statically linked, so the agent cannot be loaded into it; use a dynamically linked build of it"
                .to_owned();
        }
        Kind::Dynamic | Kind::Unknown => (),
    }
    if is_secure(member) || head.is_empty() {
        return "is a set-user-id program or one with file capabilities, into which the agent is not loaded; run it without them"
            .to_owned();
    }
    "runs without the agent: it was started with an environment of its own, or has put signal handling back; start it through libc's exec".to_owned()
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
    // The program headers follow the ELF header in every program that a linker made.
    let context = goblin::container::Ctx::new(goblin::container::Container::Big, goblin::container::Endian::Little);
    match goblin::elf::ProgramHeader::parse(head, header.e_phoff as usize, usize::from(header.e_phnum), context) {
        Ok(headers) if headers.iter().any(|header| header.p_type == PT_INTERP) => Kind::Dynamic,
        Ok(_) => Kind::Static,
        Err(_) => Kind::Unknown,
    }
}

fn is_secure(member: &Member) -> bool {
    read_proc(member.pid, "auxv").is_ok_and(|auxv| {
        auxv.chunks_exact(16).any(|entry| {
            let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| entry[at + i]));
            word(0) == AT_SECURE && word(8) != 0
        })
    })
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
