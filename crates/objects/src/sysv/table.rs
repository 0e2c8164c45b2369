//! The tables of System V IPC, `/proc/sysvipc/{shm,sem,msg}`, which show the namespace of their reader.

use ckpt_sys::sysv::Kind;

use super::Identity;

/// A line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is called, and whose it is. The mode holds marks beside the permissions, for shared memory.
    pub identity: Identity,
    /// Bytes of shared memory; how many semaphores; how many messages.
    pub size: u64,
    /// How many mappings show shared memory.
    pub attached: u64,
    /// Processes that made it or used it last, as the reader sees them.
    pub pids: Vec<i32>,
    /// When semop(2) was called last, in seconds.
    pub operated: u64,
}

impl Row {
    /// Removed, but still attached (`SHM_DEST`).
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.identity.mode & 0o1000 != 0
    }

    /// Locked in memory (`SHM_LOCKED`).
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.identity.mode & 0o2000 != 0
    }
}

/// The lines of a table; those that are not understood are left out.
#[must_use]
pub fn parse_table(kind: Kind, text: &str) -> Vec<Row> {
    text.lines().skip(1).filter_map(|line| parse_row(kind, line)).collect()
}

fn parse_row(kind: Kind, line: &str) -> Option<Row> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |at: usize| words.get(at)?.parse::<u64>().ok();
    let signed = |at: usize| words.get(at)?.parse::<i32>().ok();
    // key, id, perms; then what differs; then uid, gid, cuid, cgid.
    let (size, attached, pids, owner, operated) = match kind {
        Kind::Memory => (number(3)?, number(6)?, vec![signed(4)?], 7, 0),
        Kind::Semaphores => (number(3)?, 0, Vec::new(), 4, number(8)?),
        Kind::Messages => (number(4)?, 0, vec![signed(5)?, signed(6)?], 7, 0),
    };
    let id = |at: usize| words.get(at)?.parse::<u32>().ok();
    Some(Row {
        identity: Identity {
            key: signed(0)?,
            id: signed(1)?,
            mode: u32::from_str_radix(words.get(2)?, 8).ok()?,
            uid: id(owner)?,
            gid: id(owner + 1)?,
            cuid: id(owner + 2)?,
            cgid: id(owner + 3)?,
        },
        size,
        attached,
        pids,
        operated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_three_tables() {
        let text = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime\n\
                    -1431767003        777  1644                  4096     5     6      2   10   11   12   13          0\n";
        let rows = parse_table(Kind::Memory, text);
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!((row.identity.key, row.identity.id, row.size, row.attached), (-1_431_767_003, 777, 4096, 2));
        assert!(row.is_removed() && !row.is_locked() && row.pids == [5]);
        assert_eq!((row.identity.uid, row.identity.cgid), (10, 13));
        let text = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n\
                    \x20        0          3   600          4    10    11    12    13         99        100\n";
        let row = &parse_table(Kind::Semaphores, text)[0];
        assert_eq!((row.identity.id, row.size, row.operated, row.identity.mode), (3, 4, 99, 0o600));
        let text = "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime\n\
                    \x20        7          1   640          40          2    21    22    10    11    12    13         99\n";
        let row = &parse_table(Kind::Messages, text)[0];
        assert_eq!((row.size, row.identity.gid, &row.pids[..]), (2, 11, &[21, 22][..]));
    }
}
