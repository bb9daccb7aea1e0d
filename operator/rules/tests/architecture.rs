//! Tests that no rule reads a clock, a file or the environment, and that the modules form no
//! cycle. That none knows a client or a runtime is in Cargo.toml.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The modules, each before those that may use it.
const MODULES: [&str; 10] = [
    "crate::schedule",
    "crate::firmware",
    "crate::rollout",
    "crate::flashjob::policy",
    "crate::flashjob::grants",
    "crate::flashjob::labels",
    "crate::flashjob::observed",
    "crate::flashjob::make",
    "crate::flashjob::plan",
    "crate::world",
];

/// The modules that each module uses, by their paths from the crate. Each has a file of its own.
type Uses = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_rule_reads_a_clock_a_file_or_the_environment() {
    let forbidden =
        ["::now()", ".elapsed()", "std::fs", "std::env", "std::net::Tcp", "std::thread"];
    let files = files();
    for path in &files {
        let text = fs::read_to_string(path).expect("text");
        for word in forbidden {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
    let of_a_subfolder = |path: &PathBuf| path.ends_with("observed/pod/state.rs");
    assert!(files.iter().any(of_a_subfolder), "subfolders were not looked into: {files:?}");
}

#[test]
fn a_module_uses_only_those_before_it() {
    for (module, used) in uses() {
        let Some(own) = place(&module) else { continue };
        for used in used {
            let is_before = place(&used).is_none_or(|place| place <= own);
            assert!(is_before, "{module} uses {used}, which is above it");
        }
    }
}

#[test]
fn no_file_uses_itself_by_way_of_others() {
    let uses = uses();
    let rule = "crate::flashjob::plan::guards";
    assert!(uses[rule].contains("crate::flashjob::plan::draft"), "the uses were not found");
    let cycle = cycle(uses);
    assert!(cycle.is_none(), "these modules use each other in a cycle: {cycle:?}");
}

#[test]
fn a_grouped_import_names_each_of_its_modules() {
    let text = "use super::{summary, steps::{Plan, Step}};\n\
                fn f() { draft::Draft::new(a); a::B {} } // c::d";
    let expected: [&[&str]; 5] = [
        &["super", "summary"],
        &["super", "steps", "Plan"],
        &["super", "steps", "Step"],
        &["draft", "Draft", "new"],
        &["a", "B"],
    ];
    assert_eq!(paths(text), expected);
}

#[test]
fn a_cycle_is_found_and_named_without_those_that_lead_to_it() {
    let uses = |pairs: &[(&str, &str)]| {
        let mut uses = Uses::new();
        for (module, used) in pairs {
            uses.entry((*used).to_owned()).or_default();
            uses.entry((*module).to_owned()).or_default().insert((*used).to_owned());
        }
        uses
    };
    assert_eq!(cycle(uses(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
    let tangled = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"), ("d", "e")];
    let found = cycle(uses(&tangled));
    assert_eq!(found, Some(["b", "c", "d"].map(str::to_owned).to_vec()));
}

/// Place of the part of the crate to which a module belongs; None: it belongs to none.
fn place(module: &str) -> Option<usize> {
    let is_part = |part: &&str| {
        module.strip_prefix(*part).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    MODULES.iter().position(is_part)
}

/// Uses of all modules, without those by tests.
#[expect(clippy::expect_used, reason = "a helper of tests alone")]
fn uses() -> Uses {
    let files: BTreeMap<String, PathBuf> =
        files().into_iter().map(|path| (module_of(&path), path)).collect();
    let uses_of = |(own, path): (&String, &PathBuf)| {
        let text = fs::read_to_string(path).expect("text");
        let named = paths(without_tests(&text)).into_iter();
        let module = |path: Vec<&str>| resolve(&path, own, |name| files.contains_key(name));
        let used: BTreeSet<String> = named.filter_map(module).filter(|used| used != own).collect();
        (own.clone(), used)
    };
    files.iter().map(uses_of).collect()
}

/// Path of a file's module: `crate::flashjob::plan` for `src/flashjob/plan.rs`.
#[expect(clippy::expect_used, reason = "a helper of tests alone")]
fn module_of(file: &Path) -> String {
    let name = file.strip_prefix(source()).expect("a file of the source").with_extension("");
    let names = name.iter().map(|part| part.to_str().expect("UTF-8"));
    let below = names.filter(|name| *name != "lib");
    ["crate"].into_iter().chain(below).collect::<Vec<_>>().join("::")
}

/// A file's text up to the module of its tests, which is the last.
fn without_tests(text: &str) -> &str {
    let is_module = |(at, _): &(usize, &str)| {
        text[*at..].lines().nth(1).is_some_and(|line| line.ends_with('{'))
    };
    text.match_indices("#[cfg(test)]").find(is_module).map_or(text, |(at, _)| &text[..at])
}

/// All paths of two names or more in a text, those of a group in braces one by one.
fn paths(text: &str) -> Vec<Vec<&str>> {
    let mut paths = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    // The path before each brace that is open: none before that of a block.
    let mut groups: Vec<Vec<&str>> = Vec::new();
    let mut goes_on = false;
    for token in text.lines().flat_map(tokens) {
        let is_name = token.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
        if token == "::" {
            goes_on = true;
            continue;
        }
        let before = std::mem::take(&mut path);
        match token {
            "{" if goes_on => groups.push(before),
            name if is_name && goes_on => path = [before, vec![name]].concat(),
            _ => {
                paths.extend(Some(before).filter(|path| path.len() > 1));
                match token {
                    "{" => groups.push(Vec::new()),
                    "}" => drop(groups.pop()),
                    name if is_name => {
                        path = groups.last().cloned().unwrap_or_default();
                        path.push(name);
                    }
                    _ => {}
                }
            }
        }
        goes_on = false;
    }
    paths
}

/// Names, `::` and single other characters of a line, without its comment.
fn tokens(line: &str) -> Vec<&str> {
    let mut rest = line.split("//").next().unwrap_or_default().trim_start();
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let is_of_name = |letter: char| letter.is_alphanumeric() || letter == '_';
        let length = match first {
            _ if is_of_name(first) => {
                rest.find(|letter: char| !is_of_name(letter)).unwrap_or(rest.len())
            }
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

/// Module to which a path in module `own` leads. None: it leads out of the crate, or begins with
/// an imported name, and the import is seen as well.
fn resolve(path: &[&str], own: &str, is_module: impl Fn(&str) -> bool) -> Option<String> {
    let parts: Vec<&str> = own.split("::").collect();
    let ups = path.iter().take_while(|name| **name == "super").count();
    let full = match path[0] {
        "crate" => path.to_vec(),
        "super" => [&parts[..parts.len() - ups], &path[ups..]].concat(),
        "self" => [&parts[..], &path[1..]].concat(),
        child if is_module(&format!("{own}::{child}")) => [&parts[..], path].concat(),
        _ => return None,
    };
    // What follows the longest module is an item of it.
    (1..=full.len()).rev().map(|length| full[..length].join("::")).find(|name| is_module(name))
}

/// A cycle of modules, each of which uses the next, and the last the first.
fn cycle(mut uses: Uses) -> Option<Vec<String>> {
    // What uses nothing is in no cycle, nor is what uses only such.
    let leaf = |uses: &Uses| {
        let leaf = uses.iter().find(|(_, used)| used.is_empty());
        leaf.map(|(module, _)| module.clone())
    };
    while let Some(leaf) = leaf(&uses) {
        uses.remove(&leaf);
        for used in uses.values_mut() {
            used.remove(&leaf);
        }
    }
    let mut walk = vec![uses.keys().next()?.clone()];
    loop {
        let next = uses[walk.last()?].first()?.clone();
        match walk.iter().position(|module| *module == next) {
            Some(start) => return Some(walk.split_off(start)),
            None => walk.push(next),
        }
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All source files, but for tests.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let collected = collect(&source(), &mut files);
    assert!(collected.is_ok(), "{collected:?}");
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true if path.ends_with("tests") => {}
            true => collect(&path, files)?,
            false if path.ends_with("tests.rs") => {}
            false => files.push(path),
        }
    }
    Ok(())
}
