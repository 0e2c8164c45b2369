//! What the benches share: their subject programs, figures with their spread, and markdown tables.
//!
//! Everything that is compared is measured in the same run, in turns, so that what else the machine does falls on all
//! sides alike. Each wait is bounded, and nothing that was started or written is left behind.
#![forbid(unsafe_code)]

pub mod engines;
pub mod figures;
pub mod limits;
pub mod machine;
pub mod subjects;
