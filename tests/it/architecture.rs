//! Imports run in one direction: a module imports only from modules above it in `src/lib.rs`. A foreign crate is used
//! only in its places.

use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// The places of a crate: the start of the file's path below `src`, and the reason.
const CONFINED: [(&str, &[&str]); 6] = [
    ("axum", &["api", "server"]),
    ("reqwest", &["dashscope", "cli/healthcheck.rs", "cli/demo.rs"]),
    ("sqlx", &["store"]),
    ("rusqlite", &["store/sqlite/posting.rs"]),
    ("redis", &["redis"]),
    ("clap", &["cli"]),
];

/// Modules that must not import each other although the order would allow it.
const STRANGERS: [(&str, &[&str]); 8] = [
    ("image", &["clock", "random", "telemetry"]),
    ("extract", &["clock", "random", "telemetry", "image"]),
    ("auth", &["catalog", "extract", "quote", "image"]),
    ("ledger", &["auth", "catalog", "extract", "quote", "image"]),
    ("rate_limit", &["auth", "catalog", "quote", "telemetry"]),
    ("dashscope", &["auth", "extract", "quote", "image"]),
    ("dropin", &["ocr"]),
    ("api", &["settings", "store"]),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = folders.iter().flat_map(|folder| files_below(folder));
    let rust = files.into_iter().filter(|file| file.extension().is_some_and(|name| name == "rs"));
    rust.chain(below).collect()
}

/// The top-level modules, in the order of `lib.rs`.
fn modules() -> Vec<String> {
    let library = syn::parse_file(&fs::read_to_string(source().join("lib.rs")).unwrap()).unwrap();
    let declared = library.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    declared.collect()
}

/// The first two names of each path in a file, without tests.
#[derive(Default)]
struct Paths(Vec<(String, String)>);

impl Paths {
    fn of(file: &Path) -> Self {
        let mut paths = Self::default();
        paths.visit_file(&syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap());
        paths
    }

    fn add(&mut self, first: &syn::Ident, second: Option<&syn::Ident>) {
        let second = second.map(ToString::to_string).unwrap_or_default();
        self.0.push((first.to_string(), second));
    }

    fn add_tree(&mut self, first: &syn::Ident, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => self.add(first, Some(&path.ident)),
            syn::UseTree::Name(name) => self.add(first, Some(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(first, Some(&rename.ident)),
            syn::UseTree::Glob(_) => self.add(first, None),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_tree(first, tree));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = module.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
        });
        if !is_test {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        if let syn::UseTree::Path(path) = &import.tree {
            self.add_tree(&path.ident, &path.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut names = path.segments.iter().map(|segment| &segment.ident);
        if let (Some(first), second) = (names.next(), names.next()) {
            self.add(first, second);
        }
        syn::visit::visit_path(self, path);
    }
}

/// Each file with its path below `src` and its top-level module.
fn files() -> Vec<(String, String, Paths)> {
    let files = files_below(&source()).into_iter().map(|file| {
        let place = file.strip_prefix(source()).unwrap().to_str().unwrap().to_owned();
        let module = place.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        (place, module, Paths::of(&file))
    });
    // Test modules in separate files are declared under `cfg(test)`.
    let is_test = |place: &str| {
        ["/tests.rs", "/tests/", "/fake.rs", "/samples.rs", "/corpus.rs"]
            .iter()
            .any(|name| place.contains(name))
    };
    files.filter(|(place, ..)| !is_test(place)).collect()
}

#[test]
fn a_module_imports_only_from_those_above_it() {
    let order = modules();
    let row = |name: &str| order.iter().position(|module| module == name);
    let mut wrong = Vec::new();
    for (place, module, paths) in files() {
        let Some(own) = row(&module) else { continue };
        for (first, second) in &paths.0 {
            let Some(other) = row(second).filter(|_| first == "crate") else { continue };
            if other > own {
                wrong.push(format!("{place} imports crate::{second}, which stands below {module}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_that_need_not_know_each_other_do_not() {
    let mut wrong = Vec::new();
    for (place, module, paths) in files() {
        let Some((_, strangers)) = STRANGERS.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        for (first, second) in &paths.0 {
            if first == "crate" && strangers.contains(&second.as_str()) {
                wrong.push(format!("{place} imports crate::{second}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_foreign_crate_is_known_only_where_it_belongs() {
    let mut wrong = Vec::new();
    for (place, _, paths) in files() {
        for (name, homes) in CONFINED {
            let is_home = homes.iter().any(|home| place.starts_with(home));
            if !is_home && paths.0.iter().any(|(first, _)| first == name) {
                wrong.push(format!("{place} uses {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
