//! What the documentation shows is what the tests run.

use std::path::Path;

/// `[examples/…](../examples/…):`, an empty line, and a block of code: it is that file, to the letter.
#[test]
fn recipes_in_the_docs_are_the_examples() {
    let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
    let mut shown = 0;
    for page in ["slurm.md", "htcondor.md", "preemption.md"] {
        let text = std::fs::read_to_string(docs.join(page)).expect("a page of the documentation");
        for paragraph in text.split("\n\n").collect::<Vec<_>>().windows(2) {
            let Some(name) = paragraph[0].strip_prefix("[examples/").and_then(|rest| rest.strip_suffix("):")) else { continue };
            let (name, link) = name.split_once("](").expect("a link");
            assert_eq!(link, format!("../examples/{name}"), "{page}");
            let start = text.find(paragraph[1]).expect("it is from there");
            let code = text[start..].split_once('\n').expect("more than a line").1;
            let example = std::fs::read_to_string(ckpt_tests::examples::path(name)).expect("an example");
            assert!(code.starts_with(&format!("{example}```\n")), "{page} shows another {name} than there is");
            shown += 1;
        }
    }
    assert!(shown > 8, "only {shown} recipes were found");
}

/// Links of the documentation lead to files.
#[test]
fn links_lead_somewhere() {
    let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
    for page in std::fs::read_dir(docs).expect("docs").flatten() {
        let text = std::fs::read_to_string(page.path()).expect("a page of the documentation");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or(link);
            let is_local = !file.is_empty() && !file.contains("://");
            assert!(!is_local || docs.join(file).exists(), "{} links to {link}", page.path().display());
        }
    }
}

/// The table of real programs is what their descriptions and their results say. `CKPT_UPDATE_DOCS=1` has the test write it, as
/// `cargo xtask programs` does.
#[test]
fn the_table_of_programs_is_what_was_measured() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/programs.md"));
    let document = ckpt_tests::real::results::document();
    if std::env::var_os("CKPT_UPDATE_DOCS").is_some() {
        std::fs::write(path, &document).expect("the table can be written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == document, "docs/programs.md is not what was measured: run `cargo xtask programs`");
}
