//! Observing a signalfd.

use ckpt_sys::signal_set::SignalSet;

use super::SignalfdState;
use crate::descriptor::SeenDescriptor;
use crate::event::{self, EventError};

/// The signalfd that a descriptor of a frozen process is open on, without the checkpoint signal: nobody is to read that away.
///
/// # Errors
/// fdinfo cannot be read.
pub fn observe(descriptor: &SeenDescriptor, checkpoint_signal: i32) -> Result<SignalfdState, EventError> {
    let info = &descriptor.info;
    let mask = event::number(info, "sigmask:", 16).ok_or_else(|| event::not_understood("a signalfd", info))?;
    Ok(SignalfdState { mask: SignalSet::from_bits(mask).without(checkpoint_signal).bits() })
}
