//! Shared code of the project's own commands: running programs with a time limit, ending whole process trees, and
//! building the tools. `cargo xtask` and the benches use it; the engine does not.
#![forbid(unsafe_code)]
#![allow(clippy::missing_errors_doc, reason = "each error says for itself what failed")]

pub mod processes;
pub mod tools;

/// Writes a line to standard output. Its reader may have gone; that is no reason to leave things half done.
#[macro_export]
macro_rules! say {
    ($($line:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($line)*)));
    }};
}
