//! Dependencies between the modules of a crate, from its source. Reads files, nothing else.
//!
//! A module here is one with its own file: inline modules belong to the file that contains them.
//! Code that is only compiled for tests is ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprLit, ItemMod, ItemUse, Lit, Macro, Meta, MetaList};
use syn::{UseTree, Visibility};

/// Modules by their paths, such as `crate::flashjob::plan`, each with the modules that it uses.
pub type Uses = BTreeMap<String, BTreeSet<String>>;

/// Segments of a path, such as `super`, `plan` and `Step`.
type Names = Vec<String>;

/// All modules of a crate by their paths, including inline modules.
type Modules = BTreeMap<String, Module>;

/// Contents of a module that determine which others it uses.
#[derive(Default)]
struct Module {
    /// Path of the module whose file contains it.
    file: String,
    /// Names that `use` declarations import, with the paths that they stand for.
    imports: BTreeMap<String, Names>,
    /// Paths in its code.
    named: BTreeSet<Names>,
}

/// Returns the modules of a crate, each with those that it uses; `root` is its `lib.rs` or
/// `main.rs`.
///
/// A module that only re-exports a name does not use the module that defines it; a module that
/// imports the re-exported name does.
///
/// # Errors
/// A file cannot be read, or is not Rust.
pub fn uses(root: &Path) -> anyhow::Result<Uses> {
    let mut modules = Modules::new();
    let folder = root.parent().context("a file without a folder")?;
    read(&mut modules, "crate", root, folder)?;
    let mut uses = Uses::new();
    for (path, module) in &modules {
        let used = module.named.iter().filter_map(|named| resolve(&modules, path, named));
        let files = used.filter_map(|used| Some(modules.get(&used)?.file.clone()));
        let other_files = files.filter(|file| *file != module.file);
        uses.entry(module.file.clone()).or_default().extend(other_files);
    }
    Ok(uses)
}

/// Returns a cycle of modules, each of which uses the next, and the last the first; None if there
/// is no cycle.
#[must_use]
pub fn cycle(mut uses: Uses) -> Option<Vec<String>> {
    // Modules that use nothing are in no cycle, nor are modules that only use those.
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

/// Reads the file of a module, and those of its child modules in `folder`.
fn read(modules: &mut Modules, module: &str, file: &Path, folder: &Path) -> anyhow::Result<()> {
    let location = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {location}"))?;
    let syntax = syn::parse_file(&text).with_context(|| format!("{location} is not Rust"))?;
    let mut reader = Reader {
        modules,
        file: module.to_owned(),
        module: module.to_owned(),
        folder: folder.to_owned(),
        below: Vec::new(),
    };
    reader.module();
    reader.visit_file(&syntax);
    for Declared { module, path, folder } in reader.below {
        let beside = folder.with_extension("rs");
        match path {
            // The children of such a file are beside it.
            Some(path) => {
                let file = file.with_file_name(path);
                let folder = file.parent().context("a file without a folder")?;
                read(modules, &module, &file, folder)?;
            }
            None if beside.exists() => read(modules, &module, &beside, &folder)?,
            None => read(modules, &module, &folder.join("mod.rs"), &folder)?,
        }
    }
    Ok(())
}

/// Declaration of a module with its own file.
struct Declared {
    module: String,
    /// File in the attribute `#[path = "…"]`.
    path: Option<PathBuf>,
    /// Folder of its child modules.
    folder: PathBuf,
}

/// Collects the contents of the modules in one file.
struct Reader<'a> {
    modules: &'a mut Modules,
    /// Module that this file belongs to.
    file: String,
    /// Module that is being visited, and the folder of its child modules.
    module: String,
    folder: PathBuf,
    below: Vec<Declared>,
}

impl Reader<'_> {
    fn module(&mut self) -> &mut Module {
        let module = self.modules.entry(self.module.clone()).or_default();
        module.file.clone_from(&self.file);
        module
    }

    fn import(&mut self, before: &[String], tree: &UseTree, is_export: bool) {
        let path_to = |name: &syn::Ident| match name == "self" {
            true => before.to_vec(),
            false => [before, &[name.to_string()]].concat(),
        };
        let (name, path) = match tree {
            UseTree::Path(tree) => {
                return self.import(&path_to(&tree.ident), &tree.tree, is_export);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(before, tree, is_export));
            }
            UseTree::Glob(_) => (None, before.to_vec()),
            UseTree::Name(name) => (path_to(&name.ident).last().cloned(), path_to(&name.ident)),
            UseTree::Rename(name) => (Some(name.rename.to_string()), path_to(&name.ident)),
        };
        let module = self.module();
        if !is_export {
            module.named.insert(path.clone());
        }
        module.imports.extend(name.map(|name| (name, path)));
    }

    /// Collects the paths in the tokens of a macro or an attribute, which need not be valid
    /// syntax.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Names::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.module().named.insert(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                other => {
                    self.module().named.insert(std::mem::take(&mut path));
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                    colons = 0;
                }
            }
        }
        self.module().named.insert(path);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.attrs.iter().any(is_of_tests) {
            return;
        }
        let name = item.ident.to_string();
        let (module, folder) = (format!("{}::{name}", self.module), self.folder.join(&name));
        if item.content.is_none() {
            let path = item.attrs.iter().find_map(path);
            return self.below.push(Declared { module, path, folder });
        }
        let outer = std::mem::replace(&mut self.module, module);
        let outer_folder = std::mem::replace(&mut self.folder, folder);
        self.module();
        visit::visit_item_mod(self, item);
        (self.module, self.folder) = (outer, outer_folder);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            self.import(&[], &item.tree, !matches!(item.vis, Visibility::Inherited));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.module().named.insert(names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.visit_path(&called.path);
        self.tokens(called.tokens.clone());
    }

    fn visit_meta_list(&mut self, list: &'ast MetaList) {
        self.tokens(list.tokens.clone());
    }

    /// Ignores visibilities: `pub(super)` does not use the parent module.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// Returns true for `#[cfg(test)]`.
fn is_of_tests(attribute: &Attribute) -> bool {
    let condition = attribute.meta.require_list().map(|list| list.tokens.to_string());
    attribute.path().is_ident("cfg") && condition.is_ok_and(|condition| condition == "test")
}

/// Returns the file that `#[path = "…"]` names.
fn path(attribute: &Attribute) -> Option<PathBuf> {
    let Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        Expr::Lit(ExprLit { lit: Lit::Str(path), .. }) if pair.path.is_ident("path") => {
            Some(path.value().into())
        }
        _ => None,
    }
}

/// Returns the module to which a path in `module` leads; None if it leaves the crate, or stays in
/// `module`.
fn resolve(modules: &Modules, module: &str, path: &[String]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let child = format!("{module}::{first}");
    match first.as_str() {
        "crate" => follow(modules, "crate", rest),
        "self" => follow(modules, module, rest),
        "super" => follow(modules, module, path),
        // A single name is not a module, but a variable.
        _ if modules.contains_key(&child) && !rest.is_empty() => follow(modules, &child, rest),
        _ => imported(modules, module, first, rest),
    }
}

/// Returns the module to which a path leads, relative to module `from`.
fn follow(modules: &Modules, from: &str, path: &[String]) -> Option<String> {
    let Some((first, rest)) = path.split_first() else { return Some(from.to_owned()) };
    let child = format!("{from}::{first}");
    match first.as_str() {
        "super" => follow(modules, from.rsplit_once("::")?.0, rest),
        _ if modules.contains_key(&child) => follow(modules, &child, rest),
        _ if modules[from].imports.contains_key(first) => imported(modules, from, first, rest),
        // An item of the module.
        _ => Some(from.to_owned()),
    }
}

/// Returns the module to which a path leads that begins with a name imported by `module`.
fn imported(modules: &Modules, module: &str, name: &str, rest: &[String]) -> Option<String> {
    let import = modules[module].imports.get(name)?;
    let is_child = modules.contains_key(&format!("{module}::{name}"));
    // `use anyhow::anyhow` begins with a crate, not with the imported name.
    if import.first().is_some_and(|first| first == name) && !is_child {
        return None;
    }
    resolve(modules, module, &[import, rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the uses of a crate with these files in its source folder.
    fn uses_of(files: &[(&str, &str)]) -> Vec<(String, Vec<String>)> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, text).expect("a file");
        }
        let uses = uses(&folder.path().join("lib.rs")).expect("uses");
        let all = uses.into_iter().map(|(module, used)| (module, used.into_iter().collect()));
        all.filter(|(_, used): &(_, Vec<String>)| !used.is_empty()).collect()
    }

    fn used(module: &str, used: &[&str]) -> (String, Vec<String>) {
        (module.to_owned(), used.iter().map(|used| (*used).to_owned()).collect())
    }

    #[test]
    fn a_module_is_used_by_its_path_an_import_a_macro_or_an_attribute() {
        let root = "mod a; mod b; mod c; mod d; mod e; mod f; mod user;";
        let user = "use anyhow::anyhow;\n\
                    use super::{a, b::{self as other, B}};\n\
                    #[arg(value_parser = crate::c::parse)]\n\
                    struct S(pub(super) u8);\n\
                    fn f() { a::deep::f(vec![crate::d::D], other::g()); anyhow!(\"\") }\n\
                    mod inner { fn g(a: u8) -> super::super::e::E { g(a) } }\n\
                    fn h(f: u8) { f } // crate::f";
        let files = [("lib.rs", root), ("user.rs", user), ("a/mod.rs", "pub mod deep;")];
        let empty = ["a/deep.rs", "b.rs", "c.rs", "d.rs", "e.rs", "f.rs"].map(|name| (name, ""));
        let all = ["crate::a", "crate::a::deep", "crate::b", "crate::c", "crate::d", "crate::e"];
        assert_eq!(uses_of(&[&files[..], &empty].concat()), [used("crate::user", &all)]);
    }

    #[test]
    fn a_name_that_is_re_exported_is_used_where_it_is_and_tests_use_nothing() {
        let outer = "mod inner; mod item; #[cfg(test)] mod tests; pub use inner::Inner;\n\
                     pub use item::Item; fn f() -> Item {}";
        let files = [
            ("lib.rs", "mod outer; mod user; #[cfg(test)] mod t { use crate::user::f; }"),
            ("outer.rs", outer),
            ("outer/inner.rs", "use super::Item;"),
            ("outer/item.rs", "pub struct Item;"),
            ("user.rs", "use crate::outer::Inner;"),
        ];
        let expected = [
            used("crate::outer", &["crate::outer::item"]),
            used("crate::outer::inner", &["crate::outer::item"]),
            used("crate::user", &["crate::outer::inner"]),
        ];
        assert_eq!(uses_of(&files), expected);
    }

    #[test]
    fn a_file_that_an_attribute_names_is_read() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a.rs", "#[path = \"shared.rs\"] mod shared; struct A;"),
            ("shared.rs", "use super::A; mod below;"),
            ("below.rs", "use crate::a::A;"),
        ];
        let expected = [
            used("crate::a::shared", &["crate::a"]),
            used("crate::a::shared::below", &["crate::a"]),
        ];
        assert_eq!(uses_of(&files), expected);
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
}
