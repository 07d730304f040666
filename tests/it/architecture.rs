//! Imports run in one direction: a module imports only from modules above it in `src/lib.rs`, and no files import
//! each other in a circle. A foreign crate is used only in its places.

mod imports;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use imports::{Names, SourceFile, files_of_crate, graph};

/// The places of a crate: the start of the file's path below `src`, and the reason.
const CONFINED: [(&str, &[&str]); 6] = [
    ("axum", &["api", "server"]),
    ("reqwest", &["dashscope", "cli/healthcheck.rs", "cli/demo.rs", "cli/tune/"]),
    ("sqlx", &["store"]),
    ("rusqlite", &["store/sqlite/posting.rs"]),
    ("redis", &["redis"]),
    ("clap", &["cli"]),
];

/// Modules that must not import each other although the order would allow it.
const STRANGERS: [(&str, &[&str]); 10] = [
    ("image", &["clock", "random", "telemetry"]),
    ("legibility", &["clock", "random", "telemetry"]),
    ("extract", &["clock", "random", "telemetry", "image"]),
    ("auth", &["catalog", "extract", "quote", "image"]),
    ("calibration", &["auth", "catalog", "extract", "quote", "image", "document"]),
    ("ledger", &["auth", "catalog", "extract", "quote", "image"]),
    ("rate_limit", &["auth", "catalog", "quote", "telemetry"]),
    ("dashscope", &["auth", "extract", "quote", "image"]),
    ("dropin", &["ocr"]),
    ("api", &["settings", "store"]),
];

/// The first file of each crate.
const CRATES: [&str; 4] =
    ["src/lib.rs", "emulator/src/lib.rs", "emulator/src/main.rs", "bench/src/main.rs"];

/// A file of the library below a top-level module.
struct LibraryFile {
    /// Its path below `src`.
    place: String,
    /// The top-level module.
    room: String,
    paths: Vec<Names>,
}

fn library() -> Vec<LibraryFile> {
    let files = files_of_crate("src/lib.rs").into_iter().filter(|file| !file.module.is_empty());
    let below = files.map(|file| LibraryFile {
        place: file.place.trim_start_matches("src/").to_owned(),
        room: file.module[0].clone(),
        paths: file.paths,
    });
    below.collect()
}

impl LibraryFile {
    /// The top-level modules that the file imports from.
    fn rooms(&self) -> impl Iterator<Item = &str> {
        let in_library = self.paths.iter().filter(|path| path[0] == "crate");
        in_library.filter_map(|path| path.get(1).map(String::as_str))
    }
}

/// A shortest circle through each file that is in one, each circle once. Its first file is repeated at its end.
fn circles<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    for file in imports.keys() {
        if found.iter().flatten().any(|known| known == file) {
            continue;
        }
        found.extend(way_back(imports, file));
    }
    found
}

/// The shortest way by imports from a file to itself.
fn way_back<'a>(
    imports: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    file: &'a str,
) -> Option<Vec<&'a str>> {
    let mut ways = VecDeque::from([vec![file]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in imports.get(way.last()?)? {
            let longer = [&way[..], &[*next]].concat();
            if *next == file {
                return Some(longer);
            }
            if seen.insert(*next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

#[test]
fn a_module_imports_only_from_those_above_it() {
    let library = library();
    let mut order: Vec<&str> = library.iter().map(|file| &file.room[..]).collect();
    order.dedup();
    let row = |name: &str| order.iter().position(|room| *room == name);
    let mut wrong = Vec::new();
    for file in &library {
        for other in file.rooms().filter(|other| row(other) > row(&file.room)) {
            let LibraryFile { place, room, .. } = file;
            wrong.push(format!("{place} imports crate::{other}, which stands below {room}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_that_need_not_know_each_other_do_not() {
    let mut wrong = Vec::new();
    for file in library() {
        let strangers = STRANGERS.iter().find(|(name, _)| *name == file.room);
        let (_, strangers) = strangers.copied().unwrap_or_default();
        for other in file.rooms().filter(|other| strangers.contains(other)) {
            wrong.push(format!("{} imports crate::{other}", file.place));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_foreign_crate_is_known_only_where_it_belongs() {
    let mut wrong = Vec::new();
    for LibraryFile { place, paths, .. } in library() {
        for (name, homes) in CONFINED {
            let is_home = homes.iter().any(|home| place.starts_with(home));
            if !is_home && paths.iter().any(|path| path[0] == name) {
                wrong.push(format!("{place} uses {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut wrong = Vec::new();
    for root in CRATES {
        let files = files_of_crate(root);
        wrong.extend(circles(&graph(&files)).into_iter().map(|circle| circle.join(" -> ")));
    }
    assert!(wrong.is_empty(), "these files import each other:\n{}", wrong.join("\n"));
}

/// The circles between the modules of a crate, given as their names and sources.
fn circles_of(sources: &[(&str, &str)]) -> Vec<String> {
    let parse = |(name, source): &(&str, &str)| {
        let module = name.split("::").filter(|name| *name != "root").map(str::to_owned).collect();
        SourceFile::parse(name, module, source)
    };
    let files: Vec<_> = sources.iter().map(parse).collect();
    circles(&graph(&files)).into_iter().map(|circle| circle.join(" -> ")).collect()
}

#[test]
fn a_circle_is_told_in_the_order_of_its_imports() {
    let circles = circles_of(&[
        ("a", "use crate::{b::{B, C}, e};"),
        ("b", "fn f() { super::c::deep::name() }"),
        ("c", "struct S { a: crate::a::A }"),
        ("d", "use super::{a, c::C};"),
        ("e", "use std::fmt;"),
    ]);
    assert_eq!(circles, ["a -> b -> c -> a"]);
}

#[test]
fn a_parent_and_a_child_that_import_each_other_are_a_circle() {
    let child = ("room::child", "use super::Item;");
    for parent in [
        "mod child; pub use child::Child;",
        "mod child; use self::child::{Child as Kid};",
        "mod child; use child::*;",
        "mod child; fn f() { child::call() }",
        "mod child; fn f() { println!(\"{}\", child::TEXT) }",
        "mod child; fn f() -> Option<child::Child> { None }",
    ] {
        let circles = circles_of(&[("room", parent), child]);
        assert_eq!(circles, ["room -> room::child -> room"], "{parent}");
    }
}

#[test]
fn a_declaration_a_visibility_and_test_code_are_no_imports() {
    let child = ("room::child", "use super::Item;");
    for parent in [
        "pub mod child;",
        "mod child; pub(in crate::room::child) struct Item;",
        "mod child; /// Beside [`Child`](child::Child).\nstruct Item;",
        "mod child; #[cfg(test)] use child::Child;",
        "mod child; #[cfg(test)] mod tests { use super::child::Child; }",
        "mod child; impl Item { #[cfg(test)] fn f() { child::call() } }",
    ] {
        assert_eq!(circles_of(&[("room", parent), child]), [""; 0], "{parent}");
    }
}
