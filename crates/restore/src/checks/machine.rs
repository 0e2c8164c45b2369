//! Whether this machine can be the job's: its processor, its users, its memory, its numbers of processes.

use ckpt_image::ImageReader;
use ckpt_session::JobState;
use ckpt_sys::cpu;
use procfs::{Current, Meminfo};

use crate::error::RestoreError;
use crate::options::User;

/// The names of the words of [`cpu::features`].
const FEATURE_WORDS: [&str; 8] =
    ["CPUID 1 ecx", "CPUID 1 edx", "CPUID 7 ebx", "CPUID 7 ecx", "CPUID 7 edx", "CPUID 7.1 eax", "CPUID 0x80000001 ecx", "-"];

/// Extensions that users know by name: word, bit, name.
const FEATURE_NAMES: [(usize, u32, &str); 22] = [
    (0, 0, "SSE3"),
    (0, 9, "SSSE3"),
    (0, 12, "FMA"),
    (0, 19, "SSE4.1"),
    (0, 20, "SSE4.2"),
    (0, 22, "MOVBE"),
    (0, 23, "POPCNT"),
    (0, 25, "AES"),
    (0, 28, "AVX"),
    (0, 29, "F16C"),
    (0, 30, "RDRAND"),
    (2, 3, "BMI1"),
    (2, 5, "AVX2"),
    (2, 8, "BMI2"),
    (2, 16, "AVX-512F"),
    (2, 17, "AVX-512DQ"),
    (2, 30, "AVX-512BW"),
    (2, 31, "AVX-512VL"),
    (2, 18, "RDSEED"),
    (2, 19, "ADX"),
    (4, 24, "AMX-TILE"),
    (6, 5, "LZCNT"),
];

/// Whether programs of the job may use something that this processor does not have.
pub fn processor(job: &JobState) -> Result<(), RestoreError> {
    let machine = &job.machine;
    let mut missing = Vec::new();
    for (word, (&had, has)) in machine.cpu_features.iter().zip(cpu::features()).enumerate() {
        for bit in (0..32).filter(|bit| had & !has & 1 << bit != 0) {
            let known = FEATURE_NAMES.iter().find(|name| (name.0, name.1) == (word, bit)).map(|name| name.2.to_owned());
            missing.push(known.unwrap_or_else(|| format!("{} bit {bit}", FEATURE_WORDS[word])));
        }
    }
    let components = machine.xcr0 & !cpu::xcr0();
    if components != 0 {
        missing.push(format!("register state {components:#x} of XCR0"));
    }
    if machine.xsave_size > cpu::xsave_size() {
        missing.push(format!("an XSAVE area of {} bytes", machine.xsave_size));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(RestoreError::Processor { missing: missing.join(", "), host: machine.host.clone() })
}

/// Whether this user may make the processes of the job.
pub fn users(job: &JobState, user: User) -> Result<(), RestoreError> {
    for (process, live) in job.objects().living() {
        if let Some(&other) = live.credentials.uids.iter().find(|&&other| other != user.uid)
            && !user.is_privileged
        {
            return Err(RestoreError::User { pid: process.pid.0, uid: other });
        }
    }
    Ok(())
}

/// Whether there is memory for all pages that the image holds.
pub fn memory(reader: &ImageReader) -> Result<(), RestoreError> {
    let needed: u64 = reader.extents().iter().map(|placed| u64::from(placed.extent.len)).sum();
    // A system that does not tell is asked by trying.
    let Ok(Meminfo { mem_available: Some(available), swap_free, .. }) = Meminfo::current() else { return Ok(()) };
    let available = available + swap_free;
    if needed > available { Err(RestoreError::OutOfMemory { needed, available }) } else { Ok(()) }
}
