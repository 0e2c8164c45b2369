//! What this processor offers to programs.

use core::arch::x86_64::{__cpuid, __cpuid_count};

/// Instruction set extensions by CPUID word: leaf 1 `ecx`, `edx`; leaf 7.0 `ebx`, `ecx`, `edx`; leaf 7.1 `eax`;
/// leaf 0x8000_0001 `ecx`, `edx`. Bits that differ between processors without meaning anything to programs are masked out.
#[must_use]
pub fn features() -> [u32; 8] {
    let max = __cpuid(0).eax;
    let one = __cpuid(1);
    let (seven, seven_one) = if max >= 7 {
        (__cpuid_count(7, 0), __cpuid_count(7, 1))
    } else {
        (__cpuid_count(0x8000_0000, 0), __cpuid_count(0x8000_0000, 0))
    };
    let ext = if __cpuid(0x8000_0000).eax >= 0x8000_0001 { __cpuid(0x8000_0001) } else { __cpuid(0) };
    let (b7, c7, d7, a71) = if max >= 7 { (seven.ebx, seven.ecx, seven.edx, seven_one.eax) } else { (0, 0, 0, 0) };
    // SSE3 to AVX, F16C, RDRAND; nothing of the hypervisor, VMX or OSXSAVE bits.
    [
        one.ecx & 0x7bd8_3203,
        one.edx & 0x0780_8100,
        b7 & 0xf1af_0f2a,
        c7 & 0x4f46,
        d7 & 0x03c0_010c,
        a71 & 0x0080_0070,
        ext.ecx & 0x0121_0160,
        0,
    ]
}

/// State components that the kernel has enabled for programs (`XCR0`); 0 without XSAVE.
#[must_use]
pub fn xcr0() -> u64 {
    if __cpuid(1).ecx & (1 << 27) == 0 {
        return 0;
    }
    let (low, high): (u32, u32);
    // SAFETY: OSXSAVE is set, so `xgetbv` is enabled for programs; it reads a register and touches no memory.
    unsafe { core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Whether memory can have protection keys (pkeys(7)).
#[must_use]
pub fn has_protection_keys() -> bool {
    const XFEATURE_PKRU: u64 = 1 << 9;
    xcr0() & XFEATURE_PKRU != 0
}

/// Bytes that the enabled state components take in a signal frame (CPUID leaf 0xd).
#[must_use]
pub fn xsave_size() -> u32 {
    if xcr0() == 0 { 512 } else { __cpuid_count(0xd, 0).ebx }
}
