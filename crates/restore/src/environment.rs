//! New values of variables in the memory where a process was given its environment (`--refresh-env`).
//!
//! A value is written where the old one is, if it is no longer: `getenv` and `/proc/PID/environ` show it then. Programs that have copied their environment
//! at their start (shells, Python's `os.environ`) go by their copies; so does what they start.

use ckpt_objects::memory::MmFields;
use ckpt_session::job::Variable;

use crate::memory::{Layout, MemoryError};

/// No environment is larger (`MAX_ARG_STRLEN` and a quarter of the stack limit bound it, execve(2)).
const MOST: u64 = 64 << 20;

/// Writes what fits.
pub fn refresh(fields: &MmFields, layout: &Layout<'_>, variables: &[Variable]) -> Result<(), MemoryError> {
    let Some(len) = fields.env_end.checked_sub(fields.env_start).filter(|len| (1..=MOST).contains(len)) else { return Ok(()) };
    // The program may have said that it is where nothing is.
    let Some(block) = layout.read(fields.env_start, len as usize) else { return Ok(()) };
    for (at, bytes) in replacements(&block, variables) {
        layout.write(fields.env_start + at as u64, &bytes)?;
    }
    Ok(())
}

/// What is to be written, and where in the block. A string may take all bytes up to the next one: an earlier refresh has left zeroes where it was shorter.
fn replacements(block: &[u8], variables: &[Variable]) -> Vec<(usize, Vec<u8>)> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < block.len() {
        let Some(len) = block[at..].iter().position(|&byte| byte == 0) else { break };
        let zeroes = block[at + len..].iter().position(|&byte| byte != 0);
        let next = zeroes.map_or(block.len(), |zeroes| at + len + zeroes);
        let entry = &block[at..at + len];
        let named = |variable: &&Variable| entry.strip_prefix(&variable.name.0[..]).is_some_and(|rest| rest.starts_with(b"="));
        if let Some(Variable { name, value: Some(value) }) = variables.iter().find(named) {
            let mut new = [&name.0[..], b"=", &value.0].concat();
            if new.len() < next - at && new != entry {
                new.resize(next - at, 0);
                all.push((at, new));
            }
        }
        at = next.max(at + 1);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckpt_objects::FilePath;

    fn refreshed(block: &[u8], set: &[(&str, &str)]) -> Vec<u8> {
        let text = |text: &str| FilePath(text.as_bytes().to_vec());
        let variables: Vec<_> = set.iter().map(|(name, value)| Variable { name: text(name), value: Some(text(value)) }).collect();
        let mut block = block.to_vec();
        for (at, bytes) in replacements(&block, &variables) {
            block[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        block
    }

    #[test]
    fn values_are_written_where_they_fit() {
        let block = b"A=12345\0SLURM_JOB_ID=17\0B=x\0AB=\0";
        let shorter = refreshed(block, &[("SLURM_JOB_ID", "9"), ("A", "1234567"), ("B", "y"), ("AB", "z")]);
        assert_eq!(shorter, b"A=12345\0SLURM_JOB_ID=9\0\0B=y\0AB=\0");
        // There is still room for what was there.
        assert_eq!(refreshed(&shorter, &[("SLURM_JOB_ID", "18")]), b"A=12345\0SLURM_JOB_ID=18\0B=y\0AB=\0");
        assert_eq!(refreshed(b"A=1\0B=2\0\0\0", &[("B", "345")]), b"A=1\0B=345\0");
        assert_eq!(refreshed(b"A=1", &[("A", "2")]), b"A=1");
        assert_eq!(refreshed(b"\0\0\0", &[("A", "2")]), b"\0\0\0");
        assert_eq!(refreshed(b"", &[("A", "2")]), b"");
    }
}
