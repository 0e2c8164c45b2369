//! What the project's own commands share: running programs within a bound of time, ending whole process trees, and
//! building the tools. `cargo xtask` and the benches stand on it; nothing of the engine does.
#![forbid(unsafe_code)]

pub mod processes;
pub mod tools;
