//! Contents of a regular file that lie somewhere else than in the file: in the image, or where the job's agents kept them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ckpt_image::{ImageReader, PAGE_SIZE};
use ckpt_objects::file::data_ranges;
use ckpt_objects::job_file::{Contents, FileState, open_to_read};
use rustix::fs::{FallocateFlags, fallocate};

/// Bytes compared at once.
const PIECE: usize = 1 << 20;

/// Contents, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Bytes, holes included.
    pub size: u64,
    /// Permission bits of the file.
    pub mode: u32,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In this space of the image.
    Image(u32),
    /// At the beginning of this file.
    File(PathBuf),
}

/// A part of contents.
enum Piece<'a> {
    Data(u64, &'a [u8]),
    Hole(u64, u64),
}

impl Stored {
    /// Those that the image holds of a file.
    #[must_use]
    pub fn in_image(state: &FileState) -> Option<Self> {
        let Some(Contents::Held(space)) = state.contents() else { return None };
        Some(Self { size: state.size(), mode: state.mode, place: Place::Image(space.0) })
    }

    /// Those that another file begins with.
    #[must_use]
    pub fn in_file(path: PathBuf, state: &FileState) -> Self {
        Self { size: state.size(), mode: state.mode, place: Place::File(path) }
    }

    /// Whether a file begins with them.
    ///
    /// # Errors
    ///
    /// When one of the two cannot be read.
    pub fn begins(&self, reader: &ImageReader, path: &Path) -> io::Result<bool> {
        let file = open_to_read(path)?;
        if file.metadata()?.len() < self.size {
            return Ok(false);
        }
        let mut now = vec![0; PIECE];
        self.pieces(reader, &mut |piece| match piece {
            Piece::Data(at, bytes) => {
                now.resize(bytes.len().max(now.len()), 0);
                file.read_exact_at(&mut now[..bytes.len()], at)?;
                Ok(now[..bytes.len()] == *bytes)
            }
            Piece::Hole(from, to) => each_data(&file, from, to, |_, bytes| Ok(bytes.iter().all(|&byte| byte == 0))),
        })
    }

    /// Gives them to a file that is open for reading and writing, or is new and empty. What is the same is not written: somebody may
    /// have it mapped.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or not be written.
    pub fn write(&self, reader: &ImageReader, file: &File, path: &Path) -> io::Result<()> {
        let is_new = file.metadata()?.len() == 0;
        file.set_len(self.size)?;
        let readable = if is_new { None } else { Some(open_to_read(path)?) };
        let mut now = vec![0; if is_new { 0 } else { PIECE }];
        self.pieces(reader, &mut |piece| {
            match (piece, &readable) {
                (Piece::Data(at, bytes), None) => file.write_all_at(bytes, at)?,
                (Piece::Data(at, bytes), Some(readable)) => {
                    now.resize(bytes.len().max(now.len()), 0);
                    readable.read_exact_at(&mut now[..bytes.len()], at)?;
                    if now[..bytes.len()] != *bytes {
                        file.write_all_at(bytes, at)?;
                    }
                }
                (Piece::Hole(..), None) => (),
                (Piece::Hole(from, to), Some(readable)) => {
                    each_data(readable, from, to, |at, bytes| {
                        if bytes.iter().any(|&byte| byte != 0) {
                            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                            fallocate(file, hole, at, bytes.len().next_multiple_of(PAGE_SIZE) as u64)
                                .or_else(|_| file.write_all_at(&vec![0; bytes.len()], at))?;
                        }
                        Ok(true)
                    })?;
                }
            }
            Ok(true)
        })?;
        Ok(())
    }

    /// Calls `act` with each part, in order, until it says no. Whether it never did.
    fn pieces(&self, reader: &ImageReader, act: &mut dyn FnMut(Piece<'_>) -> io::Result<bool>) -> io::Result<bool> {
        match &self.place {
            Place::Image(space) => self.pieces_of_image(reader, *space, act),
            Place::File(path) => self.pieces_of_file(path, act),
        }
    }

    fn pieces_of_image(
        &self,
        reader: &ImageReader,
        space: u32,
        act: &mut dyn FnMut(Piece<'_>) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let (mut buffer, mut loaded, mut end) = (Vec::new(), None, 0);
        for placed in reader.extents_of(space) {
            let extent = placed.extent;
            if end < extent.address.min(self.size) && !act(Piece::Hole(end, extent.address.min(self.size)))? {
                return Ok(false);
            }
            end = extent.address.saturating_add(extent.len.into());
            if loaded != Some(placed.chunk) {
                reader.read_chunk(placed.chunk, &mut buffer).map_err(io::Error::other)?;
                loaded = Some(placed.chunk);
            }
            // The last page reaches beyond the end of the file.
            let len = u64::from(extent.len).min(self.size.saturating_sub(extent.address)) as usize;
            let bytes = buffer.get(extent.offset as usize..).and_then(|rest| rest.get(..len)).unwrap_or_default();
            if !act(Piece::Data(extent.address, bytes))? {
                return Ok(false);
            }
        }
        if end < self.size { act(Piece::Hole(end, self.size)) } else { Ok(true) }
    }

    fn pieces_of_file(&self, path: &Path, act: &mut dyn FnMut(Piece<'_>) -> io::Result<bool>) -> io::Result<bool> {
        let file = open_to_read(path)?;
        if file.metadata()?.len() < self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut end = 0;
        for (from, to) in data_ranges(&file, self.size)? {
            if end < from && !act(Piece::Hole(end, from))? {
                return Ok(false);
            }
            if !each_data(&file, from, to, |at, bytes| act(Piece::Data(at, bytes)))? {
                return Ok(false);
            }
            end = to;
        }
        if end < self.size { act(Piece::Hole(end, self.size)) } else { Ok(true) }
    }
}

/// Calls `act` with what a file has between two offsets and is no hole, until it says no. Whether it never did.
fn each_data(file: &File, from: u64, to: u64, mut act: impl FnMut(u64, &[u8]) -> io::Result<bool>) -> io::Result<bool> {
    let mut buffer = vec![0; PIECE.min(usize::try_from(to.saturating_sub(from)).unwrap_or(PIECE))];
    for (start, end) in data_ranges(file, to)? {
        let mut at = start.max(from);
        while at < end {
            let len = usize::try_from((end - at).min(buffer.len() as u64)).unwrap_or(buffer.len());
            file.read_exact_at(&mut buffer[..len], at)?;
            if !act(at, &buffer[..len])? {
                return Ok(false);
            }
            at += len as u64;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckpt_image::{Codec, Extent, ImageName, ImageWriter, encode};
    use ckpt_objects::job_file::{FileKind, FileNumber};

    fn state(size: u64, contents: Contents) -> FileState {
        let identity = FileNumber { device: 0, inode: 0, born_ns: 0 };
        let kind = FileKind::Regular { size, contents };
        FileState { identity, mode: 0o600, uid: 0, gid: 0, mtime_ns: 0, ctime_ns: 0, kind }
    }

    #[test]
    fn contents_come_back_with_their_holes() {
        let dir = tempfile::tempdir().unwrap();
        let name = ImageName::new("test", "0123456789abcdef", 1).unwrap();
        let writer = ImageWriter::create(dir.path(), &name).unwrap();
        let mut page = vec![7; PAGE_SIZE];
        page[100..].fill(0);
        let extents = [Extent { space: 3, address: 8 * PAGE_SIZE as u64, len: PAGE_SIZE as u32, offset: 0 }];
        writer.append(&encode(Codec::None, &page), &extents).unwrap();
        let image = writer.commit(b"").unwrap().path;
        let reader = ImageReader::open(&image).unwrap();
        let size = 8 * PAGE_SIZE as u64 + 100;
        let held = Stored::in_image(&state(size, Contents::Held(ckpt_objects::SpaceId(3)))).unwrap();
        let path = dir.path().join("file");
        let expected = [vec![0; 8 * PAGE_SIZE], vec![7; 100]].concat();
        for before in [vec![], vec![1; 3], vec![2; 100_000], expected.clone()] {
            std::fs::write(&path, &before).unwrap();
            assert_eq!(held.begins(&reader, &path).unwrap(), before == expected);
            let file = File::options().read(true).write(true).open(&path).unwrap();
            held.write(&reader, &file, &path).unwrap();
            assert!(std::fs::read(&path).unwrap() == expected);
        }
        std::fs::write(&path, [&expected[..], b"more"].concat()).unwrap();
        assert!(held.begins(&reader, &path).unwrap());
        let kept = Stored::in_file(path, &state(size, Contents::Unknown));
        let other = dir.path().join("other");
        std::fs::write(&other, "x").unwrap();
        let file = File::options().read(true).write(true).open(&other).unwrap();
        kept.write(&reader, &file, &other).unwrap();
        assert!(std::fs::read(&other).unwrap() == expected && kept.begins(&reader, &other).unwrap());
    }
}
