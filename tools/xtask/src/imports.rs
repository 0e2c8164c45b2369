//! `cargo xtask imports`: which crate and which file imports which. It draws them into `docs/architecture.md`, and fails when an import
//! leads upwards between the rooms of `rooms.toml`, or when files of a declared crate import each other in a circle.
//!
//! A file is a module. Tests are left out, and so is a parent that only re-exports what its children define: a path through such
//! a re-export leads to the child.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use syn::visit::{self, Visit};
use xtask::say;
use xtask::tools::root;

use crate::dependencies::packages;

const ROOMS: &str = "tools/xtask/rooms.toml";
const PAGE: &str = "docs/architecture.md";
const BEGIN: &str = "<!-- imports: written by `cargo xtask imports` -->\n";
const END: &str = "<!-- imports: end -->\n";

/// Levels from top to bottom. A name stands for itself and everything below it.
type Levels = Vec<Vec<String>>;

/// `rooms.toml`.
#[derive(Deserialize)]
struct Rooms {
    /// The levels of the crates.
    workspace: Levels,
    /// The levels of the files of each crate.
    files: BTreeMap<String, Levels>,
}

/// One crate.
struct Crate {
    /// As it is drawn.
    name: String,
    /// As Rust paths have it.
    rust_name: String,
    /// By module path below the root, which is empty for the root itself.
    modules: BTreeMap<Vec<String>, Module>,
}

/// One file.
#[derive(Default)]
struct Module {
    /// Names that it re-exports, each with the path that they stand for.
    exports: BTreeMap<String, Vec<String>>,
    /// Paths that it uses other than by re-exports.
    uses: BTreeSet<Vec<String>>,
}

/// An arrow of the drawing: from the importing node to the imported one.
type Arrows = BTreeSet<(String, String)>;

/// Checks the imports, and compares the drawing or, when it is to be written, writes it.
pub fn imports(write: bool) -> Result<()> {
    let text = fs::read_to_string(root().join(ROOMS)).with_context(|| format!("failed to read {ROOMS}"))?;
    let rooms: Rooms = toml::from_str(&text).with_context(|| format!("{ROOMS} is wrong"))?;
    let crates = crates()?;
    let between = between_crates(&crates);
    let names: Vec<String> = crates.iter().map(|it| it.name.clone()).collect();
    let mut faults = faults("workspace", &names, &between, &rooms.workspace);
    let mut drawing = format!("```mermaid\nflowchart TD\n{}```\n", lines(&between, |from, to| format!("  {from} --> {to}\n")));
    for it in &crates {
        let arrows = it.arrows();
        let files: Vec<String> = it.modules.keys().map(|path| file_name(path)).collect();
        match rooms.files.get(&it.name) {
            Some(levels) => faults.extend(self::faults(&it.name, &files, &arrows, levels)),
            None => say!("{}: not in {ROOMS}; {} circles", it.name, circles(&files, &arrows).len()),
        }
        if files.len() > 1 {
            draw(&mut drawing, &it.name, &files, &arrows, rooms.files.get(&it.name));
        }
    }
    update(&drawing, write)?;
    if !faults.is_empty() {
        bail!("imports against {ROOMS}:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// Puts the drawing into its page, or fails where the page has another.
fn update(drawing: &str, write: bool) -> Result<()> {
    let page = fs::read_to_string(root().join(PAGE)).with_context(|| format!("failed to read {PAGE}"))?;
    let (head, rest) = page.split_once(BEGIN).with_context(|| format!("{PAGE} has no line {BEGIN}"))?;
    let (_, tail) = rest.split_once(END).with_context(|| format!("{PAGE} has no line {END}"))?;
    let new = format!("{head}{BEGIN}\n{drawing}\n{END}{tail}");
    if new != page {
        if !write {
            bail!("{PAGE} does not show the present imports: run `cargo xtask imports`");
        }
        fs::write(root().join(PAGE), new).with_context(|| format!("failed to write {PAGE}"))?;
    }
    Ok(())
}

/// Draws the files of a crate, by level if these are declared.
fn draw(drawing: &mut String, name: &str, files: &[String], arrows: &Arrows, levels: Option<&Levels>) {
    let width = files.iter().map(String::len).max().unwrap_or(0);
    let mut ordered: Vec<(usize, &String)> =
        files.iter().map(|file| (levels.and_then(|it| level(it, file)).unwrap_or(0), file)).collect();
    ordered.sort();
    let _ = write!(drawing, "\n<details><summary>{name}</summary>\n\n```text\n");
    for (level, file) in ordered {
        let imported: Vec<&str> = arrows.iter().filter(|(from, _)| from == file).map(|(_, to)| to.as_str()).collect();
        let line = format!("{level:>2}  {file:width$}  {}", imported.join(", "));
        let _ = writeln!(drawing, "{}", line.trim_end());
    }
    drawing.push_str("```\n\n</details>\n");
}

fn lines(arrows: &Arrows, line: impl Fn(&str, &str) -> String) -> String {
    arrows.iter().map(|(from, to)| line(from, to)).collect()
}

/// What breaks the rule of levels or the rule against circles.
fn faults(of: &str, nodes: &[String], arrows: &Arrows, levels: &Levels) -> Vec<String> {
    let missing = nodes.iter().filter(|node| level(levels, node).is_none()).map(|node| format!("{of}: {node} is on no level"));
    let gone = levels.iter().flatten().filter(|name| !nodes.iter().any(|node| is_below(node, name)));
    let upward = arrows.iter().filter(|(from, to)| level(levels, from) > level(levels, to));
    missing
        .chain(gone.map(|name| format!("{of}: {name} is on a level, and does not exist")))
        .chain(upward.map(|(from, to)| format!("{of}: {from} imports {to}, which is above it")))
        .chain(circles(nodes, arrows).iter().map(|circle| format!("{of}: a circle of {}", circle.join(", "))))
        .collect()
}

fn is_below(node: &str, name: &str) -> bool {
    node == name || node.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
}

/// The level of a node: that of the longest name that stands for it.
fn level(levels: &Levels, node: &str) -> Option<usize> {
    let named = levels.iter().enumerate().flat_map(|(level, names)| names.iter().map(move |name| (level, name)));
    named.filter(|(_, name)| is_below(node, name)).max_by_key(|(_, name)| name.len()).map(|(level, _)| level)
}

/// Groups of nodes that all reach each other.
fn circles(nodes: &[String], arrows: &Arrows) -> Vec<Vec<String>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = nodes.iter().map(|node| (node.as_str(), reach(node, arrows))).collect();
    let mut found: Vec<Vec<String>> = Vec::new();
    for node in nodes {
        let is_known = found.iter().flatten().any(|it| it == node);
        if !is_known && reached[node.as_str()].contains(node.as_str()) {
            let both = |other: &&&str| reached[**other].contains(node.as_str());
            found.push(reached[node.as_str()].iter().filter(both).map(ToString::to_string).collect());
        }
    }
    found
}

/// Everything that a node imports, directly or not.
fn reach<'a>(node: &'a str, arrows: &'a Arrows) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut next = vec![node];
    while let Some(from) = next.pop() {
        let imported = arrows.iter().filter(|(it, _)| it == from).map(|(_, to)| to.as_str());
        next.extend(imported.filter(|to| seen.insert(*to)));
    }
    seen
}

/// The crates of the workspace but for the tests, in the order of their names.
fn crates() -> Result<Vec<Crate>> {
    let mut found = Vec::new();
    for dir in packages()? {
        let manifest = fs::read_to_string(dir.join("Cargo.toml")).with_context(|| format!("failed to read {}", dir.display()))?;
        let manifest: toml::Table = manifest.parse().with_context(|| format!("{}/Cargo.toml is wrong", dir.display()))?;
        let name = manifest["package"]["name"].as_str().context("a package has no name")?;
        let rust_name = name.replace('-', "_");
        let name = name.strip_prefix("ckpt-").filter(|_| !dir.starts_with(root().join("tools"))).unwrap_or(name);
        for (file, suffix) in [("lib.rs", ""), ("main.rs", " (main)")] {
            if dir.join("src").join(file).exists() {
                let is_second = !suffix.is_empty() && dir.join("src/lib.rs").exists();
                let name = format!("{name}{}", if is_second { suffix } else { "" });
                let mut it = Crate { name, rust_name: rust_name.clone(), modules: BTreeMap::new() };
                it.read(&dir.join("src").join(file), &dir.join("src"), Vec::new())?;
                found.push(it);
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// `ckpt_objects::file::X` in a crate leads to the crate `objects`.
fn between_crates(crates: &[Crate]) -> Arrows {
    let of_crate = |it: &Crate| {
        let firsts = it.modules.values().flat_map(|module| module.uses.iter().chain(module.exports.values()));
        let names: BTreeSet<String> = firsts.filter_map(|path| path.first().cloned()).collect();
        let imported = crates.iter().filter(|other| other.name != it.name && names.contains(&other.rust_name));
        imported.map(|other| (it.name.clone(), other.name.clone())).collect::<Vec<_>>()
    };
    crates.iter().flat_map(of_crate).collect()
}

fn file_name(path: &[String]) -> String {
    if path.is_empty() { "(root)".to_owned() } else { path.join("/") }
}

impl Crate {
    /// Reads a file and those that it declares as modules.
    fn read(&mut self, file: &Path, dir: &Path, path: Vec<String>) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("{} cannot be parsed", file.display()))?;
        let mut reader = Reader::default();
        reader.visit_file(&parsed);
        for child in reader.children {
            let below = dir.join(&child);
            let plain = dir.join(format!("{child}.rs"));
            let file = if plain.exists() { plain } else { below.join("mod.rs") };
            self.read(&file, &below, [path.clone(), vec![child]].concat())?;
        }
        self.modules.insert(path, reader.module);
        Ok(())
    }

    fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (from, module) in &self.modules {
            // Re-exports of a module's own descendants are its face; others are imports like any.
            let exported =
                module.exports.values().filter(|path| self.module(from, path, 0).is_some_and(|to| !to.starts_with(from)));
            for to in module.uses.iter().chain(exported).filter_map(|path| self.module(from, path, 0)) {
                if to != *from {
                    arrows.insert((file_name(from), file_name(&to)));
                }
            }
        }
        arrows
    }

    /// The file that a path in a file leads to; nothing for other crates and for names that were imported before.
    fn module(&self, from: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut at: Vec<String> = from.to_vec();
        let mut rest = rest;
        match first.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => {
                at.pop();
                while let Some((_, left)) = rest.split_first().filter(|(it, _)| *it == "super") {
                    at.pop();
                    rest = left;
                }
            }
            child if self.modules.contains_key(&[from, &[child.to_owned()]].concat()) => at.push(child.to_owned()),
            _ => return None,
        }
        while let Some((next, left)) = rest.split_first() {
            let below = [at.as_slice(), std::slice::from_ref(next)].concat();
            if !self.modules.contains_key(&below) {
                let export = self.modules.get(&at)?.exports.get(next);
                let followed = export.filter(|_| depth < 8).and_then(|path| self.module(&at, path, depth + 1));
                return Some(followed.unwrap_or(at));
            }
            (at, rest) = (below, left);
        }
        Some(at)
    }
}

/// Collects the paths of one file.
#[derive(Default)]
struct Reader {
    module: Module,
    children: Vec<String>,
}

impl Reader {
    fn collect(&mut self, tree: &syn::UseTree, mut prefix: Vec<String>, is_export: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.collect(&path.tree, prefix, is_export);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.collect(tree, prefix.clone(), is_export)),
            syn::UseTree::Name(name) if name.ident == "self" => self.record(prefix.last().cloned(), prefix, is_export),
            syn::UseTree::Name(name) => {
                prefix.push(name.ident.to_string());
                self.record(Some(name.ident.to_string()), prefix, is_export);
            }
            syn::UseTree::Rename(rename) => {
                prefix.push(rename.ident.to_string());
                self.record(Some(rename.rename.to_string()), prefix, is_export);
            }
            _ => self.record(Some("*".to_owned()), prefix, is_export),
        }
    }

    fn record(&mut self, name: Option<String>, path: Vec<String>, is_export: bool) {
        match name.filter(|_| is_export) {
            Some(name) => drop(self.module.exports.insert(name, path)),
            None => drop(self.module.uses.insert(path)),
        }
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes
        .iter()
        .any(|it| matches!(&it.meta, syn::Meta::List(list) if list.path.is_ident("cfg") && list.tokens.to_string() == "test"))
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        match &item.content {
            _ if is_for_tests(&item.attrs) => {}
            None => self.children.push(item.ident.to_string()),
            Some(_) => visit::visit_item_mod(self, item),
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_export = !matches!(item.vis, syn::Visibility::Inherited);
        if !is_for_tests(&item.attrs) {
            self.collect(&item.tree, Vec::new(), is_export);
        }
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.module.uses.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, it: &'ast syn::Macro) {
        // What a macro is given need not be Rust: paths in it are found by their colons.
        let tokens = it.tokens.to_string().replace(" :: ", "::");
        let words = tokens.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).filter(|word| word.contains("::"));
        self.module.uses.extend(words.map(|word| word.split("::").map(str::to_owned).collect()));
        visit::visit_macro(self, it);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    fn arrows(text: &[(&str, &str)]) -> Arrows {
        text.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
    }

    #[test]
    fn upward_imports_and_circles_are_faults() {
        let levels = vec![words("top"), words("middle"), words("low low/deep")];
        let nodes = words("top middle low low/deep");
        let sound = arrows(&[("top", "middle"), ("middle", "low"), ("low/deep", "low")]);
        assert_eq!(faults("it", &nodes, &sound, &levels), Vec::<String>::new());
        let upward = arrows(&[("low/deep", "top")]);
        assert_eq!(faults("it", &nodes, &upward, &levels), ["it: low/deep imports top, which is above it"]);
        let circle = arrows(&[("low", "low/deep"), ("low/deep", "low")]);
        assert_eq!(faults("it", &nodes, &circle, &levels), ["it: a circle of low, low/deep"]);
        assert_eq!(faults("it", &words("top new"), &Arrows::new(), &levels[..1].to_vec()), ["it: new is on no level"]);
    }

    #[test]
    fn a_path_leads_to_the_file_that_defines_the_name() {
        let files = [
            ("", "pub mod a; mod b; pub use a::deep::Deep; fn f() { b::g(); }"),
            ("a", "pub mod deep; pub use deep::Deep; use std::fs;"),
            ("a deep", "use super::super::b::G; #[cfg(test)] mod tests { use crate::a; }"),
            ("b", "use crate::{a, Deep}; fn g() { println!(\"{}\", crate::a::X); }"),
        ];
        let mut it = Crate { name: String::new(), rust_name: String::new(), modules: BTreeMap::new() };
        for (path, text) in files {
            let mut reader = Reader::default();
            reader.visit_file(&syn::parse_file(text).expect("Rust"));
            it.modules.insert(words(path), reader.module);
        }
        assert_eq!(it.arrows(), arrows(&[("(root)", "b"), ("a/deep", "b"), ("b", "a"), ("b", "a/deep")]));
    }
}
