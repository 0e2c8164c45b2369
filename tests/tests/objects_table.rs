//! `docs/objects.md` says what survives, by kernel object: it is generated from what the programs of `programs/` declare that they show.
//!
//! A program declares, each in a line of its own at its head:
//!
//! ```text
//! // @restored OBJECT: properties
//! // @refused OBJECT: what, and why
//! // @not-kept OBJECT: what: why
//! ```
//!
//! `CKPT_UPDATE_DOCS=1` has the test write the table instead of comparing it; `cargo xtask objects` does that.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What comes before the table.
const HEAD: &str = "\
# What survives, by kernel object

Generated from the test programs in [`tests/programs`](../tests/programs) by `cargo xtask objects`: each line stands at the head of the program
that shows it. *Restored* and *refused* are tested there: every program passes by itself, under checkpoints ten times a second, killed with SIGKILL
and restarted as root, and restarted three times over as an ordinary user. What is *refused* fails the checkpoint with a line that names it, and the job runs on.
What is *not kept* has its reason.

A descriptor or mapping of a kind that is in no line here is refused by name too.
";

/// What a program declares of an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Restored,
    Refused,
    NotKept,
}

impl Fate {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "@restored" => Self::Restored,
            "@refused" => Self::Refused,
            "@not-kept" => Self::NotKept,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Refused => "refused",
            Self::NotKept => "not kept",
        }
    }
}

/// All declarations: by object, then in the order of fates: the text and the program.
type Table = BTreeMap<String, Vec<(Fate, String, String)>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

fn programs() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/programs")).expect("there are programs");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    found.sort();
    found
}

fn name(program: &Path) -> String {
    program.file_stem().expect("a name").to_string_lossy().into_owned()
}

fn table() -> Table {
    let mut table = Table::new();
    for program in programs() {
        let source = fs::read_to_string(&program).expect("a program can be read");
        for line in source.lines().filter_map(|line| line.strip_prefix("// @")) {
            let parts = format!("@{line}");
            let (word, rest) = parts.split_once(' ').unwrap_or((&parts, ""));
            let fate = Fate::of(word).unwrap_or_else(|| panic!("{}: no such declaration: {word}", program.display()));
            let (object, text) = rest.split_once(": ").unwrap_or_else(|| panic!("{}: no object: {line}", program.display()));
            table.entry(object.to_owned()).or_default().push((fate, text.to_owned(), name(&program)));
        }
    }
    for lines in table.values_mut() {
        lines.sort();
    }
    table
}

fn rendered(table: &Table) -> String {
    let mut text = HEAD.to_owned();
    let mut objects: Vec<&String> = table.keys().collect();
    objects.sort_by_key(|object| object.to_lowercase());
    for object in objects {
        write!(text, "\n## {object}\n\n| | | program |\n|---|---|---|\n").expect("a string takes all");
        for (fate, what, program) in &table[object] {
            let what = what.replace('|', "\\|");
            writeln!(text, "| {} | {what} | [`{program}`](../tests/programs/{program}.c) |", fate.name())
                .expect("a string takes all");
        }
    }
    text
}

#[test]
fn the_table_is_what_the_programs_declare() {
    let path = root().join("docs/objects.md");
    let rendered = rendered(&table());
    if std::env::var_os("CKPT_UPDATE_DOCS").is_some() {
        fs::write(&path, &rendered).expect("the table can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == rendered, "docs/objects.md is not what the programs declare: run `cargo xtask objects`");
}

/// All files of tests.
fn tests() -> String {
    let entries = fs::read_dir(root().join("tests/tests")).expect("there are tests");
    entries.map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("a test can be read")).collect()
}

#[test]
fn every_declaration_has_a_test() {
    let tests = tests();
    for program in programs() {
        let name = name(&program);
        let named = [format!("!({name})"), format!("!({name},"), format!("\"{name}\"")];
        assert!(named.iter().any(|named| tests.contains(named)), "no test runs {name}");
    }
}

/// What `program_survives!` makes tests for: plain, killed, restarted three times over as an ordinary user, left running.
#[test]
fn every_program_runs_five_ways() {
    /// They have tests of their own: one needs servers outside of the job, one shows what a program is started with, and ends, one only root may run.
    const OTHERWISE: [&str; 3] = ["outside_sockets", "signal_mask", "io_flusher"];
    let tests = tests();
    let made: Vec<&str> =
        tests.split("program_survives!(").skip(1).map(|rest| rest.split(";\n").next().unwrap_or_default()).collect();
    for program in programs() {
        let restored = fs::read_to_string(&program).expect("a program can be read").contains("\n// @restored ");
        let name = name(&program);
        let runs = made.iter().any(|made| *made == format!("{name})") || made.contains(&format!("program(\"{name}\",")));
        assert!(!restored || runs || OTHERWISE.contains(&name.as_str()), "no program_survives! runs {name}");
    }
}

#[test]
fn every_program_declares_what_it_shows() {
    /// Programs that help others, and those that show how commands behave.
    const HELPERS: [&str; 4] = ["ask_login", "confined", "own_preload", "foreign_ipc"];
    for program in programs() {
        let source = fs::read_to_string(&program).expect("a program can be read");
        let declares = source.lines().any(|line| line.starts_with("// @"));
        assert!(declares || HELPERS.contains(&name(&program).as_str()), "{} declares nothing", program.display());
    }
}
