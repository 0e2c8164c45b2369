//! Shared code of the benches: their subject programs, figures with their spread, and markdown tables.
//!
//! Things that are compared are measured in the same run, in turns, so that other load affects all sides alike. Each wait is
//! bounded, and the benches leave no process and no file behind.
#![forbid(unsafe_code)]
#![allow(clippy::missing_errors_doc, reason = "each error says for itself what failed")]

pub mod engines;
pub mod figures;
pub mod limits;
pub mod machine;
pub mod subjects;
