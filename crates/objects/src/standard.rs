//! Standard input, output and error of the launcher, which the job has from it. A restart puts its own in their place; but what the job
//! has not read yet of its input is the job's ([`keep_input`]).
//!
//! The launcher may have two or three of them on one open file description, as a shell on a terminal gives them. A restart may have them
//! on different ones: so each becomes a description of its own, told apart by the numbers that the job's processes have them under
//! ([`split`]).

use crate::FileIndex;
use crate::descriptor::{SeenDescriptor, is_own};
use crate::open_file::OpenFile;
use crate::process::ProcessState;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Splits them in `open_files`, which are those of `descriptors`, and in all that refers to them.
pub fn split(descriptors: &[SeenDescriptor], open_files: &mut Vec<OpenFile>, processes: &mut [ProcessState]) {
    for (file, descriptor) in (0u32..).map(FileIndex).zip(descriptors) {
        let numbers: Vec<u8> = (0..3).filter(|&number| is_own(descriptor, i32::from(number))).collect();
        if numbers.len() < 2 {
            continue;
        }
        // What has another number is mostly an output that was put by (`exec 3>&1`).
        let other = if numbers.contains(&1) { 1 } else { 2 };
        let mut places = vec![(other, file)];
        open_files[file.at()].inherited = Some(other);
        for &number in numbers.iter().filter(|&&number| number != other) {
            places.push((number, open_files.len().into()));
            open_files.push(OpenFile { inherited: Some(number), ..open_files[file.at()].clone() });
        }
        let place = |fd: i32| places.iter().find(|(number, _)| i32::from(*number) == fd).map_or(file, |(_, place)| *place);
        for process in processes.iter_mut() {
            for entry in process.live_mut().into_iter().flat_map(|live| &mut live.descriptors).filter(|entry| entry.file == file)
            {
                entry.file = place(entry.fd);
            }
        }
        for open in open_files.iter_mut() {
            for registration in open.kind.registrations_mut().iter_mut().filter(|one| one.file == file) {
                registration.file = place(registration.fd);
            }
        }
    }
}

/// Makes the launcher's standard input a file of the job's own, where a restart can bring back what is left to read: of a file, with or
/// without a name, and of a pipe that nobody writes to any more. A here-document is one of these.
pub fn keep_input(open_files: &mut [OpenFile]) {
    for open in open_files.iter_mut().filter(|open| open.inherited == Some(0)) {
        if open.kind.is_lasting_input(has_ended) {
            (open.inherited, open.is_input) = (None, true);
        }
    }
}

/// Whether the standard input of this process is a pipe whose writers are all gone.
fn has_ended() -> bool {
    let input = std::io::stdin();
    let mut fds = [PollFd::new(&input, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}
