//! The tree of pages: the pages of a file in their order, where one page is listed more than once.
//!
//! hayro keeps the first mention of a page, but viewers show each. A file of a megabyte can mention one page 200,000
//! times, so the pages are counted as the tree declares them.

use std::collections::{HashMap, HashSet};

use hayro::hayro_syntax::Pdf;
use hayro::hayro_syntax::object::{Array, Dict, MaybeRef, ObjectIdentifier};

/// The most pages that are counted. A tree whose branches are shared has no other bound.
const MOST_PAGES: usize = 1_000_000;

/// How deep a tree of pages is followed.
const DEEPEST: usize = 64;

/// The pages of `pdf` in their order, as indexes of hayro's pages. `None` if hayro has them all.
pub(super) fn order(pdf: &Pdf) -> Option<Vec<usize>> {
    let xref = pdf.xref();
    let root = xref.get::<Dict<'_>>(xref.root_id())?.get::<Dict<'_>>(b"Pages")?;
    let found = pdf.pages().len();
    let declared = root.get::<u32>(b"Count").and_then(|count| usize::try_from(count).ok())?;
    if declared <= found {
        return None;
    }
    let identified = pdf.pages().iter().enumerate();
    let known = identified.filter_map(|(index, page)| Some((page.raw().obj_id()?, index)));
    let mut tree = Tree { pdf, known: known.collect(), order: Vec::new() };
    tree.follow(&root, &mut Vec::new());
    (tree.order.len() > found).then_some(tree.order)
}

/// The objects in the tree of pages; none if other readers would not find the tree. hayro searches a file for pages
/// that are in no tree.
pub(super) fn listed(pdf: &Pdf) -> HashSet<ObjectIdentifier> {
    let mut listed = HashSet::new();
    let xref = pdf.xref();
    let root = xref.get::<Dict<'_>>(xref.root_id()).and_then(|root| root.get_ref(b"Pages"));
    let Some(root) = root.map(ObjectIdentifier::from) else { return listed };
    let is_counted = |tree: Dict<'_>| tree.get::<u32>(b"Count").is_some();
    if !xref.get::<Dict<'_>>(root).is_some_and(is_counted) {
        return listed;
    }
    let mut unread = vec![root];
    while let Some(branch) = unread.pop() {
        if !listed.insert(branch) || listed.len() > MOST_PAGES {
            continue;
        }
        let kids = xref.get::<Dict<'_>>(branch).and_then(|dict| dict.get::<Array<'_>>(b"Kids"));
        let kids = kids.iter().flat_map(Array::raw_iter);
        unread.extend(kids.filter_map(|kid| kid.as_obj_ref().map(ObjectIdentifier::from)));
    }
    listed
}

struct Tree<'a> {
    pdf: &'a Pdf,
    known: HashMap<ObjectIdentifier, usize>,
    order: Vec<usize>,
}

impl Tree<'_> {
    fn follow(&mut self, branch: &Dict<'_>, above: &mut Vec<ObjectIdentifier>) {
        let children = branch.get::<Array<'_>>(b"Kids");
        for child in children.iter().flat_map(Array::raw_iter) {
            let MaybeRef::Ref(child) = child else { continue };
            let child = ObjectIdentifier::from(child);
            if self.order.len() >= MOST_PAGES {
                return;
            }
            if let Some(page) = self.known.get(&child) {
                self.order.push(*page);
            } else if above.len() < DEEPEST
                && !above.contains(&child)
                && let Some(inner) = self.pdf.xref().get::<Dict<'_>>(child)
            {
                above.push(child);
                self.follow(&inner, above);
                above.pop();
            }
        }
    }
}
