//! What the project's own commands share: running programs within a bound of time, ending whole process trees, and
//! building the tools. `cargo xtask` and the benches stand on it; nothing of the engine does.
#![forbid(unsafe_code)]

pub mod processes;
pub mod tools;

/// Writes a line to standard output. Whoever read it may have seen enough: that is no reason to leave things half done.
#[macro_export]
macro_rules! say {
    ($($line:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($line)*)));
    }};
}
