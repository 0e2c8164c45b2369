//! Observing a signalfd.

use super::SignalfdState;
use crate::descriptor::SeenDescriptor;
use crate::event::{self, EventError};

/// The signalfd that a descriptor of a frozen process is open on, without the checkpoint signal: nobody is to read that away.
pub fn observe(descriptor: &SeenDescriptor, checkpoint_signal: i32) -> Result<SignalfdState, EventError> {
    let info = &descriptor.info;
    let mask = event::number(info, "sigmask:", 16).ok_or_else(|| event::not_understood("a signalfd", info))?;
    let hidden = u32::try_from(checkpoint_signal - 1).ok().and_then(|bit| 1u64.checked_shl(bit)).unwrap_or(0);
    Ok(SignalfdState { mask: mask & !hidden })
}
