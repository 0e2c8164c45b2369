//! The description of the machine in an image.

use std::fs;
use std::os::unix::fs::FileExt;

use ckpt_objects::HostPid;
use ckpt_objects::clocks::Clocks;
use ckpt_objects::memory::mappings;
use ckpt_session::job::Machine;

/// This machine, now, with what its clocks show to the job.
pub fn observe(clocks: Clocks) -> Machine {
    let name = rustix::system::uname();
    Machine {
        host: name.nodename().to_string_lossy().into_owned(),
        kernel: name.release().to_string_lossy().into_owned(),
        xcr0: ckpt_sys::cpu::xcr0(),
        cpu_features: ckpt_sys::cpu::features().to_vec(),
        xsave_size: ckpt_sys::cpu::xsave_size(),
        clocks,
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        vdso: vdso().unwrap_or_default(),
    }
}

/// The bytes of the vDSO: the kernel maps the same one into every process.
fn vdso() -> Option<Vec<u8>> {
    let own = HostPid(i32::try_from(std::process::id()).ok()?);
    let vdso = mappings(own).ok()?.into_iter().find(|mapping| mapping.name.0 == b"[vdso]")?;
    let mut bytes = vec![0; usize::try_from(vdso.end - vdso.start).ok()?];
    fs::File::open("/proc/self/mem").ok()?.read_exact_at(&mut bytes, vdso.start).ok()?;
    Some(bytes)
}
