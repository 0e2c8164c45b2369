//! Placeholder.
pub mod control;
pub mod holes;
pub mod paths;
pub mod restorer;
#[cfg(test)]
mod testing;
pub mod tree;
