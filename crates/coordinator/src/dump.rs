//! Receives the pages that processes hand over: workers compress slots of all rings and append them to the image.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ckpt_image::{CHUNK_SIZE, Codec, Extent, ImageWriter, PAGE_SIZE, WriteError, encode};
use ckpt_objects::SpaceId;
use ckpt_objects::file::Piece;
use ckpt_objects::subject::Subject;
use ckpt_session::Received;
use ckpt_wire::{Report, ReportKind};

use crate::error::DumpError;
use crate::frozen::FrozenProcess;
use crate::hand_over::{HandOver, HandOverError};

/// How long a worker waits for a slot before it looks after those who dump.
const LOOK_AFTER: Duration = Duration::from_millis(20);

struct Ring<'a> {
    process: &'a FrozenProcess,
    memory: &'a HandOver,
    /// The slot that is taken next.
    next: Mutex<u64>,
}

struct Dump<'a> {
    rings: Vec<Ring<'a>>,
    writer: &'a ImageWriter,
    codec: Codec,
    failed: AtomicBool,
    cancelled: &'a AtomicBool,
    error: Mutex<Option<DumpError>>,
}

/// Takes everything that these processes hand over.
pub fn collect(
    processes: &[FrozenProcess],
    writer: &ImageWriter,
    codec: Codec,
    workers: usize,
    cancelled: &AtomicBool,
) -> Result<(), DumpError> {
    let rings = processes.iter().map(|process| Ring { process, memory: &process.memory, next: Mutex::new(0) }).collect();
    let dump = Dump { rings, writer, codec, failed: AtomicBool::new(false), cancelled, error: Mutex::new(None) };
    std::thread::scope(|scope| {
        for first in 1..workers {
            let dump = &dump;
            // With fewer threads it takes longer.
            let _ = std::thread::Builder::new().spawn_scoped(scope, move || dump.work(first));
        }
        dump.work(0);
    });
    match dump.error.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => {
            for process in processes {
                process.memory.cancel();
            }
            Err(error)
        }
        Err(poisoned) => poisoned.into_inner().map_or(Ok(()), Err),
    }
}

impl Dump<'_> {
    fn work(&self, first: usize) {
        let count = self.rings.len();
        let mut at = first;
        let mut data = Vec::new();
        while !self.failed.load(Ordering::Relaxed) {
            if self.cancelled.load(Ordering::Relaxed) {
                return self.fail(DumpError::Cancelled);
            }
            let mut waiting = None;
            let mut took = false;
            for step in 0..count {
                let ring = &self.rings[(at + step) % count];
                match ring.take() {
                    NextSlot::Slot(number) => {
                        if let Err(error) = self.store(ring, number, &mut data) {
                            self.fail(error);
                        }
                        at += step;
                        took = true;
                        break;
                    }
                    NextSlot::Later(number) => waiting = waiting.or(Some((ring, number))),
                    NextSlot::Done => (),
                    NextSlot::Damaged(error) => return self.fail(ring.damaged(error)),
                }
            }
            if took {
                continue;
            }
            let Some((ring, number)) = waiting else { return };
            if !ring.memory.wait(number, LOOK_AFTER) && ring.memory.total_slots().is_none() {
                self.look_after(ring);
            }
        }
    }

    fn fail(&self, error: DumpError) {
        self.failed.store(true, Ordering::Relaxed);
        let mut first = self.error.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        first.get_or_insert(error);
    }

    /// Copies a slot into `data`, gives it back, and appends it to the image.
    fn store(&self, ring: &Ring<'_>, number: u64, data: &mut Vec<u8>) -> Result<(), DumpError> {
        let runs = ring.memory.contents(number, data).map_err(|error| ring.damaged(error))?;
        ring.memory.give_back(number);
        let mut offset = 0u32;
        let mut extents = Vec::with_capacity(runs.len());
        for run in runs {
            extents.push(Extent { space: run.space, address: run.address, len: run.len, offset });
            offset = offset.saturating_add(run.len);
        }
        if !data.is_empty() {
            self.writer.append(&encode(self.codec, data), &extents)?;
        }
        Ok(())
    }

    /// Sees whether whoever fills this ring is still there.
    fn look_after(&self, ring: &Ring<'_>) {
        match ring.process.connection.receive::<Report>() {
            Received::Nothing => (),
            Received::Message(report, _) => {
                if ReportKind::of(&report) == Some(ReportKind::Failed) {
                    self.fail(DumpError::Agent(ring.process.failure(&report)));
                }
            }
            Received::Closed => {
                if ring.memory.total_slots().is_none() {
                    self.fail(DumpError::Ended { pid: ring.process.ns_pid, name: ring.process.name() });
                }
            }
        }
    }
}

enum NextSlot {
    /// This slot is the caller's.
    Slot(u64),
    /// This slot comes next, but is not there yet.
    Later(u64),
    /// There is none any more.
    Done,
    /// The agent's memory is damaged.
    Damaged(HandOverError),
}

impl Ring<'_> {
    fn take(&self) -> NextSlot {
        let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let number = *next;
        // The total is looked at first: it is written after the last slot.
        let total = self.memory.total_slots();
        if total.is_some_and(|total| number >= total) {
            return NextSlot::Done;
        }
        if self.memory.take(number) {
            *next += 1;
            return NextSlot::Slot(number);
        }
        match total {
            None => NextSlot::Later(number),
            // It is told when every slot has been handed over.
            Some(total) => NextSlot::Damaged(HandOverError::Missing { total, missing: number }),
        }
    }

    fn damaged(&self, source: HandOverError) -> DumpError {
        DumpError::Damaged { pid: self.process.ns_pid, name: self.process.name(), source }
    }
}

/// Appends the contents of files; small ones share a chunk.
pub struct Packer<'a> {
    writer: &'a ImageWriter,
    codec: Codec,
    chunk: Vec<u8>,
    extents: Vec<Extent>,
}

impl<'a> Packer<'a> {
    /// One that has nothing yet.
    pub fn new(writer: &'a ImageWriter, codec: Codec) -> Self {
        Self { writer, codec, chunk: Vec::new(), extents: Vec::new() }
    }

    /// Adds `len` bytes from `address` of a space on; `read` gives those from its first argument on.
    pub fn add(
        &mut self,
        space: SpaceId,
        address: u64,
        len: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), DumpError>,
    ) -> Result<(), DumpError> {
        let mut done = 0;
        while done < len {
            let start = self.chunk.len();
            let part = (len - done).min((CHUNK_SIZE - start) as u64) as usize;
            self.chunk.resize(start + part.next_multiple_of(PAGE_SIZE), 0);
            if let Err(error) = read(done, &mut self.chunk[start..start + part]) {
                self.chunk.truncate(start);
                return Err(error);
            }
            let padded = (self.chunk.len() - start) as u32;
            self.extents.push(Extent { space: space.0, address: address + done, len: padded, offset: start as u32 });
            done += part as u64;
            if self.chunk.len() >= CHUNK_SIZE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Appends what is left.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if !self.chunk.is_empty() {
            self.writer.append(&encode(self.codec, &self.chunk), &self.extents)?;
        }
        self.chunk.clear();
        self.extents.clear();
        Ok(())
    }
}

/// Appends the contents of a file without a name.
pub fn append_pieces(writer: &ImageWriter, codec: Codec, space: SpaceId, pieces: Vec<Piece>) -> Result<(), WriteError> {
    for piece in pieces {
        let mut bytes = piece.bytes;
        bytes.resize(bytes.len().next_multiple_of(PAGE_SIZE), 0);
        for (i, chunk) in bytes.chunks(CHUNK_SIZE).enumerate() {
            let extent =
                Extent { space: space.0, address: piece.offset + (i * CHUNK_SIZE) as u64, len: chunk.len() as u32, offset: 0 };
            writer.append(&encode(codec, chunk), &[extent])?;
        }
    }
    Ok(())
}
