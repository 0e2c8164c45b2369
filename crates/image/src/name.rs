//! Names of image files: `ckpt_<name>_<job>_<generation>.img`.
//!
//! The job and the generation have fixed forms. So a name is parsed from its right end, and `<name>` may contain anything.

use std::path::Path;

use thiserror::Error;

/// The most bytes of `<name>`: it has a fixed place in the header.
pub(crate) const MAX_NAME: usize = 64;

/// Hexadecimal digits of a job id.
pub(crate) const JOB_DIGITS: usize = 16;

/// A generation is padded to this many digits, so that names sort as text up to 999999 generations.
const GENERATION_DIGITS: usize = 6;

/// The parts of an image's file name, each in the form that it has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    name: String,
    job: String,
    generation: u64,
}

/// A malformed job id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("job id {0:?} is not 16 lower-case hexadecimal digits")]
pub struct NameError(pub String);

impl ImageName {
    /// A name from its parts. `name` is made fit for a file name: characters other than ASCII letters, digits, `.`, `-`
    /// and `_` become `-`, and it is cut at 64 bytes.
    ///
    /// # Errors
    ///
    /// When `job` is not 16 lower-case hexadecimal digits.
    pub fn new(name: &str, job: &str, generation: u64) -> Result<Self, NameError> {
        if !is_job_id(job) {
            return Err(NameError(job.to_owned()));
        }
        let mut name: String = name.chars().take(MAX_NAME).map(|c| if is_plain(c) { c } else { '-' }).collect();
        if name.is_empty() {
            name.push_str("job");
        }
        Ok(Self { name, job: job.to_owned(), generation })
    }

    /// The job's name: usually its program's file name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The job's id: 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn job(&self) -> &str {
        &self.job
    }

    /// The checkpoint's number within the job.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The name of the complete file.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("ckpt_{}_{}_{:0GENERATION_DIGITS$}.img", self.name, self.job, self.generation)
    }

    /// The name of the file while it is written; `ckpt_*.img` never matches it.
    #[must_use]
    pub fn temp_file_name(&self) -> String {
        format!(".{}.tmp", self.file_name())
    }

    /// Another such name, if another user's file has the first.
    #[must_use]
    pub(crate) fn other_temp_file_name(&self, number: u32) -> String {
        format!(".{}.{number:08x}.tmp", self.file_name())
    }

    /// The name of the directory, beside the images of the job, for what its restarts set aside; `ckpt_*.img` never matches it.
    #[must_use]
    pub fn aside_name(&self) -> String {
        format!("ckpt_{}_{}.aside", self.name, self.job)
    }

    /// The name of the directory, beside the images of the job, for text of other programs that restarts cut off from its output.
    #[must_use]
    pub fn output_name(&self) -> String {
        format!("ckpt_{}_{}.output", self.name, self.job)
    }

    /// The name of the directory, beside the images of the job, for the list of the files that it touches; `ckpt_*.img` never matches it.
    #[must_use]
    pub fn list_name(&self) -> String {
        format!(".ckpt_{}_{}.files", self.name, self.job)
    }

    /// The parts of the last component of `path`, if that is the name of a complete image.
    #[must_use]
    pub fn parse(path: &Path) -> Option<Self> {
        Self::from_file_name(path.file_name()?.to_str()?)
    }

    /// The parts of the last component of `path`, if that is the name of an image being written.
    #[must_use]
    pub fn parse_temporary(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_prefix('.')?.strip_suffix(".tmp")?;
        let image =
            name.rsplit_once('.').filter(|(_, number)| number.len() == 8 && *number != "img").map_or(name, |(image, _)| image);
        Self::from_file_name(image)
    }

    fn from_file_name(file_name: &str) -> Option<Self> {
        let (rest, generation) = file_name.strip_prefix("ckpt_")?.strip_suffix(".img")?.rsplit_once('_')?;
        let (name, job) = rest.rsplit_once('_')?;
        let parsed = Self::new(name, job, generation.parse().ok()?).ok()?;
        // Only names that this crate generates: `+7`, `007` or a foreign character belong to other files.
        (parsed.file_name() == file_name).then_some(parsed)
    }
}

pub(crate) fn is_job_id(job: &str) -> bool {
    job.len() == JOB_DIGITS && job.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(is_plain)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "0123456789abcdef";

    #[test]
    fn a_name_is_parsed_from_its_right_end() {
        for program in ["my_script.sh", "_", "a_0123456789abcdef_000001", "ckpt_x", "x.img"] {
            let name = ImageName::new(program, JOB, 7).expect("valid job id");
            assert_eq!(name.file_name(), format!("ckpt_{program}_{JOB}_000007.img"));
            assert_eq!(ImageName::parse(Path::new("/some/dir").join(name.file_name()).as_path()), Some(name.clone()));
            assert_eq!(ImageName::parse_temporary(Path::new(&name.temp_file_name())), Some(name.clone()));
            assert_eq!(ImageName::parse(Path::new(&name.temp_file_name())), None);
            assert_eq!(ImageName::parse(Path::new(&name.aside_name())), None);
        }
    }

    #[test]
    fn any_program_name_becomes_a_file_name() {
        for (program, expected) in [("", "job"), ("a b/c\nd", "a-b-c-d"), ("café", "caf-"), ("..", "..")] {
            assert_eq!(ImageName::new(program, JOB, 1).expect("valid job id").name(), expected);
        }
        assert_eq!(ImageName::new(&"x".repeat(300), JOB, u64::MAX).expect("valid job id").name().len(), MAX_NAME);
    }

    #[test]
    fn foreign_names_are_not_images() {
        for foreign in [
            "ckpt_x.img",
            "ckpt_x_0123456789ABCDEF_000001.img",
            "ckpt_x_0123456789abcdef_1.img",
            "ckpt_x_0123456789abcdef_+00001.img",
            "ckpt_x_0123456789abcdef_0000001.img",
            "ckpt_x_0123456789abcde_000001.img",
            "ckpt__0123456789abcdef_000001.img",
            "ckpt_x_0123456789abcdef_99999999999999999999.img",
            "xckpt_x_0123456789abcdef_000001.img",
        ] {
            assert_eq!(ImageName::parse(Path::new(foreign)), None, "{foreign}");
        }
    }

    #[test]
    fn generations_sort_as_text() {
        let names: Vec<_> = [9, 10, 99_999, 100_000].map(|g| ImageName::new("x", JOB, g).expect("valid").file_name()).into();
        assert!(names.is_sorted());
    }

    #[test]
    fn a_job_id_has_one_form() {
        for job in ["", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef0", "0123456789abcdeg"] {
            assert_eq!(ImageName::new("x", job, 1), Err(NameError(job.to_owned())));
        }
    }
}
