//! `ckpt-inspect`: shows the contents of a checkpoint image, for people and for programs.
//!
//! It reads images and writes text; it knows no process and restores nothing.

#![forbid(unsafe_code)]

mod report;
mod summary;
mod tree;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ckpt_cli::exit;
use ckpt_image::{ImageReader, ReadError};
use ckpt_session::{Bytes, JobState, harmless};
use clap::Parser;
use thiserror::Error;

use crate::report::ImageReport;

const EXIT_CODES: &str = "\
Exit codes:
  0    every image is valid
  120  bad usage
  124  an image cannot be read, is not complete or is damaged
  125  the output could not be written";

/// Show the contents of checkpoint images.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 120)]
struct Options {
    /// Check every byte of each image, and print the result in one line
    #[arg(long)]
    verify: bool,

    /// Print one JSON object per image, each on its own line: the sizes and the whole state of the job
    #[arg(long)]
    json: bool,

    /// Image files, usually ckpt_*.img
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
    let options: Options = match exit::read_command_line() {
        Ok(options) => options,
        Err(code) => return code,
    };
    match show(&options, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => exit::IMAGE_INVALID.into(),
        Err(error) => {
            // A reader that stops early, such as `head`, needs no message.
            if error.kind() != io::ErrorKind::BrokenPipe {
                complain(&format!("failed to write to standard output: {error}"));
            }
            exit::FAILED.into()
        }
    }
}

/// Shows every image. Returns whether all are valid; an error is one of the output.
fn show(options: &Options, out: &mut impl Write) -> io::Result<bool> {
    let mut all_valid = true;
    for (n, path) in options.images.iter().enumerate() {
        match inspect(path, options) {
            Ok(text) => {
                // Summaries have many lines.
                let gap = if n > 0 && !options.json && !options.verify { "\n" } else { "" };
                write!(out, "{gap}")?;
                for line in text.lines() {
                    writeln!(out, "{}", harmless(line))?;
                }
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
    let report = ImageReport::new(&image, &state, verified.is_some());
    Ok(match verified {
        _ if options.json => format!("{}\n", report.as_json()),
        Some(verified) => {
            let size = Bytes(verified.raw_bytes);
            format!("{}: ok, {} chunks, {} pages, {size}\n", path.display(), verified.chunks, verified.pages)
        }
        None => summary::Summary(&report).to_string(),
    })
}

/// Prints one line on standard error; if that is closed, there is no way to report it.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "ckpt: {}", harmless(message));
}
