//! The modules of a crate, and what each imports, read from the source.
//!
//! An import is any path that names another module: in a `use`, in an expression or a type, or in the arguments of a
//! macro. A re-export (`pub use child::Item`) is one too, since a child that then asks its parent for the item makes a
//! circle. These are none: the declaration of a child (`mod child;`), a visibility (`pub(in crate::room)`), a link in a
//! comment, and code under `#[cfg(test)]`. A method call names no module, so it does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

/// The names of a path, such as `["crate", "units", "Money"]`.
pub(super) type Names = Vec<String>;

/// The file of a module, without test code.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// Its path from the root of the repository, such as `src/units.rs`.
    pub(super) place: String,
    /// The module that it holds, such as `["units"]`.
    pub(super) module: Names,
    /// Every path that it names.
    pub(super) paths: Vec<Names>,
    /// The modules that it declares in files of their own.
    children: Vec<String>,
}

impl SourceFile {
    pub(super) fn parse(place: &str, module: Names, source: &str) -> Self {
        let mut found = Found::default();
        found.visit_file(&syn::parse_file(source).unwrap());
        found.paths.retain(|path| !path.is_empty());
        Self { place: place.to_owned(), module, paths: found.paths, children: found.children }
    }
}

/// The files of the crate that begins with `root`, such as `src/lib.rs`.
///
/// Files are found by their declarations, so that those of tests are left out.
pub(super) fn files_of_crate(root: &str) -> Vec<SourceFile> {
    let mut files = vec![read(root, Vec::new())];
    let (folder, _) = root.rsplit_once('/').unwrap();
    let mut next = 0;
    while let Some(file) = files.get(next) {
        let children = file
            .children
            .iter()
            .map(|child| [&file.module[..], std::slice::from_ref(child)].concat());
        let children: Vec<_> =
            children.map(|module| read(&place_of(folder, &module), module)).collect();
        files.extend(children);
        next += 1;
    }
    files
}

fn place_of(folder: &str, module: &[String]) -> String {
    let path = format!("{folder}/{}", module.join("/"));
    let alone = format!("{path}.rs");
    if repository().join(&alone).exists() { alone } else { format!("{path}/mod.rs") }
}

fn read(place: &str, module: Names) -> SourceFile {
    SourceFile::parse(place, module, &fs::read_to_string(repository().join(place)).unwrap())
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The imports of each file, by position in the list. The files are those of one crate.
pub(super) fn graph(files: &[SourceFile]) -> BTreeMap<&str, BTreeSet<&str>> {
    let places: BTreeMap<&[String], &str> =
        files.iter().map(|file| (&file.module[..], &file.place[..])).collect();
    let imports = |file: &SourceFile| {
        let imported = file.paths.iter().filter_map(|path| imported(&places, &file.module, path));
        imported.filter(|place| *place != file.place).collect()
    };
    files.iter().map(|file| (&file.place[..], imports(file))).collect()
}

/// The file of the module that `path` leads to from `module`; `None` for a path into another crate.
fn imported<'a>(
    places: &BTreeMap<&[String], &'a str>,
    module: &[String],
    path: &[String],
) -> Option<&'a str> {
    let supers = path.iter().take_while(|name| *name == "super").count();
    let full = match path.first()?.as_str() {
        "crate" => path[1..].to_vec(),
        "self" => [module, &path[1..]].concat(),
        "super" => [&module[..module.len().checked_sub(supers)?], &path[supers..]].concat(),
        child => {
            let child = [module, &[child.to_owned()]].concat();
            places.get(&child[..])?;
            [module, path].concat()
        }
    };
    (0..=full.len()).rev().find_map(|length| places.get(&full[..length]).copied())
}

/// The content of a file.
#[derive(Default)]
struct Found {
    paths: Vec<Names>,
    children: Vec<String>,
}

impl Found {
    fn add_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.paths.push(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.paths.push(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.paths.push(before.to_vec()),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_tree(before, tree));
            }
        }
    }

    /// Adds the paths in the arguments of a macro, which are tokens and not a syntax tree.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path = Names::new();
        let mut continues = false;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if !continues {
                        self.paths.push(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                }
                TokenTree::Group(group) => self.add_tokens(group.stream()),
                TokenTree::Punct(sign) if sign.as_char() == ':' => {
                    continues = true;
                    continue;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            continues = false;
        }
        self.paths.push(path);
    }
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attributes(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            syn::visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        match module.content {
            None => self.children.push(module.ident.to_string()),
            Some(_) => syn::visit::visit_item_mod(self, module),
        }
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        self.add_tree(&[], &import.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add_tokens(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}
