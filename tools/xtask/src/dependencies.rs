//! Every dependency that a `Cargo.toml` lists is used: some source of the package names it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xtask::tools::root;

/// Fails with the dependencies that no source of their package names.
pub fn check() -> Result<()> {
    let mut unused = Vec::new();
    for dir in packages()?.into_iter().chain([root().join("tests")]) {
        let manifest = fs::read_to_string(dir.join("Cargo.toml")).with_context(|| format!("failed to read {}", dir.display()))?;
        let manifest: toml::Table = manifest.parse().with_context(|| format!("{}/Cargo.toml is wrong", dir.display()))?;
        let mut text = String::new();
        read_sources(&dir, &mut text)?;
        let listed = ["dependencies", "dev-dependencies"].into_iter().filter_map(|kind| manifest.get(kind)?.as_table());
        let names = listed.flat_map(toml::Table::keys).filter(|name| !is_named(&text, &name.replace('-', "_")));
        unused.extend(names.map(|name| format!("{}: {name}", dir.strip_prefix(root()).unwrap_or(&dir).display())));
    }
    if !unused.is_empty() {
        bail!("dependencies that are not used:\n  {}", unused.join("\n  "));
    }
    Ok(())
}

/// The folders of the workspace's packages, except the tests.
pub fn packages() -> Result<Vec<PathBuf>> {
    let mut found = vec![root().join("preload"), root().join("benches")];
    for group in ["crates", "tools"] {
        let entries = fs::read_dir(root().join(group)).with_context(|| format!("failed to read {group}"))?;
        found.extend(entries.flatten().map(|entry| entry.path()));
    }
    found.retain(|dir| dir.join("Cargo.toml").exists());
    found.sort();
    Ok(found)
}

/// Appends all Rust sources below a folder.
fn read_sources(dir: &Path, text: &mut String) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("failed to read {}", dir.display()))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_sources(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?);
        }
    }
    Ok(())
}

/// Whether a path or a `use` begins with this crate.
fn is_named(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back().unwrap_or(' ');
        let after = &text[at + name.len()..];
        !(before.is_alphanumeric() || before == '_' || before == ':') && (after.starts_with("::") || after.starts_with(';'))
            || text[..at].ends_with("use ") && after.starts_with([' ', ';'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_named_by_paths_and_uses() {
        for text in ["use glob;", "use glob::Pattern;", "(glob::glob(x))", "use glob as g;"] {
            assert!(is_named(text, "glob"), "{text}");
        }
        for text in ["globs::x", "// of a glob", "files::glob::x", "my_glob::x"] {
            assert!(!is_named(text, "glob"), "{text}");
        }
    }
}
