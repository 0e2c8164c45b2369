//! `ckpt-inspect`: what is in a checkpoint image, for people and for programs.
//!
//! It reads images and writes text; it knows no process and restores nothing.

#![forbid(unsafe_code)]

mod report;
mod summary;
mod tree;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ckpt_image::{ImageReader, ReadError};
use ckpt_session::JobState;
use clap::Parser;
use thiserror::Error;

use crate::report::Report;

/// The command line was not understood.
const BAD_USAGE: u8 = 120;
/// Some image cannot be read, is not complete, or is damaged.
const IMAGE_INVALID: u8 = 124;
/// The output could not be written.
const OUTPUT_FAILED: u8 = 125;

/// Shows what is in checkpoint images.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes:\n  0    every image is valid\n  120  bad usage\n  124  an image cannot be read, is not complete or is \
                  damaged\n  125  the output could not be written"
)]
struct Options {
    /// Check every byte of each image, and say so in one line.
    #[arg(long)]
    verify: bool,

    /// One JSON object for each image, each on a line of its own: its sizes and the whole state of the job.
    #[arg(long)]
    json: bool,

    /// Image files, usually ckpt_*.img.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

/// Why an image could not be shown.
#[derive(Debug, Error)]
enum InspectError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{} holds no job that this release knows ({source}); use the release that wrote it", path.display())]
    State { path: PathBuf, source: postcard::Error },
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Help and version come as errors too, but with exit code 0. Where they cannot be printed nothing can.
            let _ = error.print();
            return if error.use_stderr() { BAD_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match show(&options, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => IMAGE_INVALID.into(),
        Err(error) => {
            // A reader that has seen enough, such as `head`, needs no message.
            if error.kind() != io::ErrorKind::BrokenPipe {
                complain(&format!("failed to write to standard output: {error}"));
            }
            OUTPUT_FAILED.into()
        }
    }
}

/// Shows every image. Whether all are valid; the error is of the output.
fn show(options: &Options, out: &mut impl Write) -> io::Result<bool> {
    let mut all_valid = true;
    for (n, path) in options.images.iter().enumerate() {
        match inspect(path, options) {
            Ok(text) => {
                // Summaries have many lines each.
                let gap = if n > 0 && !options.json && !options.verify { "\n" } else { "" };
                write!(out, "{gap}{text}")?;
            }
            Err(error) => {
                all_valid = false;
                if options.json {
                    writeln!(out, "{}", report::failure_as_json(path, &error.to_string()))?;
                }
                complain(&error.to_string());
            }
        }
    }
    out.flush()?;
    Ok(all_valid)
}

/// The text for one image, with its line ends.
fn inspect(path: &Path, options: &Options) -> Result<String, InspectError> {
    let image = ImageReader::open(path)?;
    let state: JobState =
        postcard::from_bytes(image.metadata()).map_err(|source| InspectError::State { path: path.to_owned(), source })?;
    let verified = if options.verify { Some(image.verify()?) } else { None };
    let report = Report::new(&image, &state, verified.is_some());
    Ok(match verified {
        _ if options.json => format!("{}\n", report.as_json()),
        Some(verified) => {
            let size = summary::bytes(verified.raw_bytes);
            format!("{}: ok, {} chunks, {} pages, {size}\n", path.display(), verified.chunks, verified.pages)
        }
        None => summary::Summary(&report).to_string(),
    })
}

/// One line on standard error; where that is closed there is nobody to tell.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "ckpt: {message}");
}
