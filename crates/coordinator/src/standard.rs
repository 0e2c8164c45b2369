//! Standard input, output and error, where the launcher had two or three of them on one open file description, as a shell on a terminal
//! gives them. A restart may have them on different ones: so each becomes a description of its own, told apart by the numbers that the
//! job's processes have them under.

use ckpt_objects::descriptor::{SeenDescriptor, is_own};
use ckpt_objects::file::{OpenFile, OpenFileKind};
use ckpt_objects::process::{Life, ProcessState};

/// Splits them in `open_files`, which are those of `descriptors`, and in all that refers to them.
pub fn split(descriptors: &[SeenDescriptor], open_files: &mut Vec<OpenFile>, processes: &mut [ProcessState]) {
    for (file, descriptor) in (0u32..).zip(descriptors) {
        let numbers: Vec<u8> = (0..3).filter(|&number| is_own(descriptor, i32::from(number))).collect();
        if numbers.len() < 2 {
            continue;
        }
        // What has another number is mostly an output that was put by (`exec 3>&1`).
        let other = if numbers.contains(&1) { 1 } else { numbers[0] };
        let mut places = vec![(other, file)];
        open_files[file as usize].inherited = Some(other);
        for &number in numbers.iter().filter(|&&number| number != other) {
            places.push((number, open_files.len() as u32));
            open_files.push(OpenFile { inherited: Some(number), ..open_files[file as usize].clone() });
        }
        let place = |fd: i32| places.iter().find(|(number, _)| i32::from(*number) == fd).map_or(file, |(_, place)| *place);
        for process in processes.iter_mut() {
            let Life::Alive(live) = &mut process.life else { continue };
            for entry in live.descriptors.iter_mut().filter(|entry| entry.file == file) {
                entry.file = place(entry.fd);
            }
        }
        for open in open_files.iter_mut() {
            if let OpenFileKind::Epoll(epoll) = &mut open.kind {
                for registration in epoll.registrations.iter_mut().filter(|one| one.file == file) {
                    registration.file = place(registration.fd);
                }
            }
        }
    }
}
