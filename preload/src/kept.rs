//! The variables that a program keeps even when it cleans its environment.

use core::ffi::CStr;

use ckpt_agent::{CONFIG, touched};

/// The variables that are kept, each as a C string `NAME=VALUE`.
pub fn kept() -> impl Iterator<Item = &'static CStr> {
    let config = CONFIG.get();
    let mut rest = config.kept.get(..config.kept_len).unwrap_or(&[]);
    let others = core::iter::from_fn(move || {
        let variable = CStr::from_bytes_until_nul(rest).ok()?;
        rest = rest.get(variable.count_bytes() + 1..)?;
        Some(variable)
    });
    // Kept by itself, since a restart changes it.
    others.chain(touched::variable())
}

/// The value that is kept of a variable.
pub fn kept_value(name: &str) -> Option<&'static [u8]> {
    kept().find_map(|variable| variable.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
