//! The machine's limits with the same bytes: the figures that engines are compared with.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xtask::processes::run_well;

/// How long one of them may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The bytes, and where to write them.
pub struct Limits {
    contents: Vec<u8>,
    copy: Vec<u8>,
    file: PathBuf,
    dir: PathBuf,
}

impl Limits {
    /// Takes `contents`, and writes them to a file in `dir` too.
    pub fn new(contents: Vec<u8>, dir: &Path) -> Result<Self> {
        let file = dir.join("contents");
        write_durably(&file, &contents)?;
        // Not zeroes, so that the copy has its own pages from the start.
        Ok(Self { copy: vec![1; contents.len()], contents, file, dir: dir.to_path_buf() })
    }

    /// Seconds to copy the bytes in memory with one thread.
    #[must_use]
    pub fn memcpy(&mut self) -> f64 {
        let start = Instant::now();
        black_box(&mut self.copy).copy_from_slice(black_box(&self.contents));
        start.elapsed().as_secs_f64()
    }

    /// Seconds to write the bytes to a new file, durably.
    pub fn write(&self) -> Result<f64> {
        let file = self.dir.join("written");
        let start = Instant::now();
        write_durably(&file, &self.contents)?;
        let took = start.elapsed().as_secs_f64();
        std::fs::remove_file(&file).context("failed to remove a file")?;
        Ok(took)
    }

    /// Seconds that `zstd -1 -T0` takes to compress the bytes from a cached file into a new file, made durable; and the
    /// bytes of that file.
    pub fn zstd(&self) -> Result<(f64, u64)> {
        let file = self.dir.join("compressed");
        let start = Instant::now();
        run_well(Command::new("zstd").args(["-1", "-T0", "-q", "-f", "-o"]).arg(&file).arg(&self.file), LIMIT)?;
        let compressed = File::open(&file).context("failed to open what zstd wrote")?;
        compressed.sync_all().context("failed to make what zstd wrote durable")?;
        let took = start.elapsed().as_secs_f64();
        let size = compressed.metadata().context("failed to look at what zstd wrote")?.len();
        std::fs::remove_file(&file).context("failed to remove a file")?;
        Ok((took, size))
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("failed to write {}", path.display()))
}
