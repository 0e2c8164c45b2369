//! System calls that a restored process makes itself, when its memory is the job's and its threads are there.
//!
//! No Rust can run by then, so the calls are data: an object's room says which they are, and the restart hands them to its restorer.

/// What a call is for, to name it when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "`ALL` says what each is")]
pub enum Purpose {
    Unmap,
    Move,
    Map,
    Protect,
    Advise,
    Guard,
    Name,
    Vdso,
    MmFields,
    Lock,
    Seal,
    Close,
    SignalAction,
    TileRegisters,
    Thread,
    FsBase,
    GsBase,
    TidAddress,
    RobustList,
    ThreadName,
    TimerSlack,
    NoNewPrivileges,
    Scheduling,
    Affinity,
    IoPriority,
    Groups,
    User,
    BoundingSet,
    SecureBits,
    Capabilities,
    ParentDeathSignal,
    PendingSignal,
    Rseq,
    Limit,
    Wake,
    Exit,
    Dumpable,
    Timer,
    MakeTimer,
    FileLock,
    Owner,
    ProtectionKey,
    MemoryPolicy,
    Setting,
}

impl Purpose {
    /// All of them, in their order, each with what it is called.
    pub const ALL: [(Self, &'static str); 44] = [
        (Self::Unmap, "unmapping its memory before the job's takes its place"),
        (Self::Move, "moving memory to its address"),
        (Self::Map, "mapping memory"),
        (Self::Protect, "setting the protection of memory"),
        (Self::Advise, "setting the properties of memory"),
        (Self::Guard, "setting guard pages"),
        (Self::Name, "naming memory"),
        (Self::Vdso, "mapping the vDSO"),
        (Self::MmFields, "setting the bounds of program, heap and stack"),
        (Self::Lock, "locking memory"),
        (Self::Seal, "sealing memory"),
        (Self::Close, "closing a descriptor"),
        (Self::SignalAction, "installing a signal handler"),
        (Self::TileRegisters, "asking for AMX tile registers"),
        (Self::Thread, "creating a thread with its id"),
        (Self::FsBase, "setting the fs base"),
        (Self::GsBase, "setting the gs base"),
        (Self::TidAddress, "setting where the end of a thread is noted"),
        (Self::RobustList, "setting the list of robust mutexes"),
        (Self::ThreadName, "naming a thread"),
        (Self::TimerSlack, "setting the timer slack"),
        (Self::NoNewPrivileges, "setting no_new_privs"),
        (Self::Scheduling, "setting the scheduling policy"),
        (Self::Affinity, "setting the processors to run on"),
        (Self::IoPriority, "setting the I/O priority"),
        (Self::Groups, "setting the supplementary groups"),
        (Self::User, "setting user and group"),
        (Self::BoundingSet, "limiting the capabilities"),
        (Self::SecureBits, "setting the secure bits"),
        (Self::Capabilities, "setting the capabilities"),
        (Self::ParentDeathSignal, "setting the parent-death signal"),
        (Self::PendingSignal, "queueing a pending signal"),
        (Self::Rseq, "registering restartable sequences"),
        (Self::Limit, "setting a resource limit"),
        (Self::Wake, "telling that it is ready"),
        (Self::Exit, "ending a thread that had ended"),
        (Self::Dumpable, "setting the dumpable flag"),
        (Self::Timer, "arming a timer"),
        (Self::MakeTimer, "making a timer with its id"),
        (Self::FileLock, "taking a file lock that it had"),
        (Self::Owner, "setting whom a file sends signals"),
        (Self::ProtectionKey, "giving memory its protection key"),
        (Self::MemoryPolicy, "setting on which memory nodes pages are to lie"),
        (Self::Setting, "setting a property of a process or thread with prctl"),
    ];

    /// What the one with this number is called.
    #[must_use]
    pub fn describe(number: u32) -> &'static str {
        Self::ALL.iter().find(|(purpose, _)| *purpose as u32 == number).map_or("an unknown call", |(_, text)| text)
    }
}

/// What becomes of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The restart fails.
    Fail,
    /// It is reported, and the restart goes on.
    Report,
    /// Nothing.
    Ignore,
}

/// An argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A number.
    Value(u64),
    /// The address that this offset into [`Deferred::data`] will have.
    At(usize),
}

impl From<u32> for Argument {
    fn from(value: u32) -> Self {
        Self::Value(value.into())
    }
}

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Self::Value(value.cast_unsigned().into())
    }
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The system call `nr`.
    Call {
        /// See there.
        purpose: Purpose,
        /// See there.
        on_failure: OnFailure,
        /// `__NR_*`.
        nr: u32,
        /// Those that a call does not name are 0.
        args: [Argument; 6],
    },
    /// Takes seconds and nanoseconds off the `struct timespec` at this offset.
    Backdate {
        /// Offset into [`Deferred::data`].
        at: usize,
        /// Seconds and nanoseconds.
        by: [u64; 2],
    },
}

/// Calls, in order, and the data that they point to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deferred {
    /// What [`Argument::At`] points into. It must lie at an address divisible by 16.
    pub data: Vec<u8>,
    /// What to do.
    pub actions: Vec<Action>,
}

impl Deferred {
    /// Adds data, aligned for anything.
    pub fn put(&mut self, bytes: &[u8]) -> Argument {
        let at = self.data.len().next_multiple_of(16);
        self.data.resize(at, 0);
        self.data.extend_from_slice(bytes);
        Argument::At(at)
    }

    /// Adds data made of numbers.
    pub fn put_words(&mut self, words: &[u64]) -> Argument {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.put(&bytes)
    }

    /// Adds a call.
    pub fn call(&mut self, purpose: Purpose, on_failure: OnFailure, nr: u32, arguments: &[Argument]) {
        let mut args = [Argument::Value(0); 6];
        for (to, from) in args.iter_mut().zip(arguments) {
            *to = *from;
        }
        self.actions.push(Action::Call { purpose, on_failure, nr, args });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_aligned_and_found_by_its_offset() {
        let mut deferred = Deferred::default();
        assert_eq!(deferred.put(&[1, 2, 3]), Argument::At(0));
        assert_eq!(deferred.put_words(&[7]), Argument::At(16));
        assert_eq!(deferred.data[16..], 7u64.to_ne_bytes());
    }
}
