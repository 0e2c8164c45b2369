//! POSIX message queues (mq_overview(7)), by their descriptors.

use linux_raw_sys::general as nr;

use crate::raw::Errno;
use crate::syscall;

/// `struct mq_attr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Attributes {
    /// `O_NONBLOCK`, of the description.
    pub flags: i64,
    /// Most messages.
    pub capacity: i64,
    /// Most bytes of a message.
    pub message_size: i64,
    /// Messages in it.
    pub messages: i64,
    reserved: [i64; 4],
}

impl Attributes {
    /// Those that a new queue is given.
    #[must_use]
    pub fn new(capacity: i64, message_size: i64) -> Self {
        Self { capacity, message_size, ..Self::default() }
    }
}

/// Makes a queue, whose name is without the slash, and has it open for reading and writing for as long as `with` looks at it.
///
/// # Errors
/// `EEXIST` where there is a queue of this name, `EINVAL` for attributes beyond the limits, `EMFILE`, `ENOSPC`.
pub fn create<T>(name: &core::ffi::CStr, attributes: &Attributes, with: impl FnOnce(i32) -> T) -> Result<T, Errno> {
    let flags = nr::O_RDWR | nr::O_CREAT | nr::O_EXCL | nr::O_CLOEXEC;
    // SAFETY: the name ends with a zero byte, and the attributes are those of the kernel; both live over the call.
    let fd = unsafe { syscall!(nr::__NR_mq_open, name.as_ptr(), flags, 0o600, &raw const *attributes) }? as i32;
    let result = with(fd);
    // SAFETY: the descriptor was made here, and `with` could not take it over.
    let _ = unsafe { syscall!(nr::__NR_close, fd) };
    Ok(result)
}

/// Removes a name.
///
/// # Errors
/// `ENOENT` where there is no queue of this name.
pub fn remove(name: &core::ffi::CStr) -> Result<(), Errno> {
    // SAFETY: the name ends with a zero byte.
    unsafe { syscall!(nr::__NR_mq_unlink, name.as_ptr()) }.map(|_| ())
}

/// mq_getattr(3).
///
/// # Errors
/// `EBADF` where the descriptor is no queue.
pub fn attributes(queue: i32) -> Result<Attributes, Errno> {
    let mut attributes = Attributes::default();
    // SAFETY: the attributes are writable.
    unsafe { syscall!(nr::__NR_mq_getsetattr, queue, 0, &raw mut attributes) }?;
    Ok(attributes)
}

/// Takes the first message, if there is one; gives its priority and its length. The buffer must have room for the longest.
///
/// # Errors
/// `ETIMEDOUT` where the queue is empty, `EMSGSIZE` where the buffer is too short.
pub fn receive(queue: i32, buffer: &mut [u8]) -> Result<(u32, usize), Errno> {
    let (mut priority, past) = (0u32, [0i64; 2]);
    // SAFETY: the buffer is writable for its length, the others live over the call.
    let len = unsafe {
        syscall!(nr::__NR_mq_timedreceive, queue, buffer.as_mut_ptr(), buffer.len(), &raw mut priority, past.as_ptr())
    }?;
    Ok((priority, len as usize))
}

/// Puts a message in; waits for room until `deadline`, seconds of the wall clock.
///
/// # Errors
/// `ETIMEDOUT` where there was no room until then, `EMSGSIZE` where the message is too long.
pub fn send(queue: i32, priority: u32, message: &[u8], deadline: i64) -> Result<(), Errno> {
    let deadline = [deadline, 0];
    // SAFETY: the message is readable for its length, the time lives over the call.
    unsafe { syscall!(nr::__NR_mq_timedsend, queue, message.as_ptr(), message.len(), priority, deadline.as_ptr()) }.map(|_| ())
}
