//! A short description of the machine that was measured.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

/// Processor, memory, kernel, and the file system of `dir`.
#[must_use]
pub fn described(dir: &Path) -> String {
    let processor = value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let kib: u64 = value("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next().and_then(|number| number.parse().ok()))
        .unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{processor}, {} processors, {} GiB of memory, Linux {}, images on {}",
        thread::available_parallelism().map_or(1, usize::from),
        kib >> 20,
        kernel.trim(),
        file_system(dir)
    )
}

/// Bytes available to programs without swapping (`MemAvailable`).
#[must_use]
pub fn available_memory() -> u64 {
    value("/proc/meminfo", "MemAvailable")
        .and_then(|text| text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()))
        .unwrap_or(u64::MAX >> 10)
        << 10
}

fn value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn file_system(dir: &Path) -> String {
    let output = Command::new("stat").args(["--file-system", "--format=%T"]).arg(dir).output();
    output.map_or_else(|_| "an unknown file system".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
