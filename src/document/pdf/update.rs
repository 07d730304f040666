//! Adds a text layer to a file by an update that is appended to it (ISO 32000-2, 7.5.6).
//!
//! No byte of the file changes. Each page with text gets a new version of its dictionary: the stream of its text stands
//! before its own content, and the font is among its resources. The text comes first because it is invisible, and
//! because then it does not depend on the graphics state that the content leaves behind.

use std::collections::HashSet;

use hayro::hayro_syntax::Pdf;
use hayro::hayro_syntax::object::{Array, Dict, MaybeRef, Object, ObjectIdentifier};
use hayro::hayro_syntax::page::Page;

use super::copied;
use super::index::{Fault, Index};
use super::page_box::PageBox;
use super::page_tree;
use crate::document::error::DocumentError;
use crate::document::page::PageLines;
use crate::document::searchable::font::{FONT_OBJECTS, GlyphlessFont};
use crate::document::searchable::layer::{ToPage, layer};
use crate::document::searchable::object::{ObjectId, Objects};

/// What an index that is a stream has in its dictionary for itself.
const OF_THE_STREAM: [&[u8]; 10] = [
    b"Size",
    b"Prev",
    b"XRefStm",
    b"Type",
    b"W",
    b"Index",
    b"Length",
    b"Filter",
    b"DecodeParms",
    b"DL",
];

/// The name of the font among the resources of a page, followed by a number if the page has one of the name.
const FONT_NAME: &str = "OcrText";

/// The update of a file, without the file.
///
/// # Errors
///
/// [`DocumentError::NotSearchable`] if the file cannot be updated.
pub(super) fn update<'a>(
    pdf: &'a Pdf,
    lines: &[PageLines],
    page_of: impl Fn(u32) -> Result<&'a Page<'a>, DocumentError>,
) -> Result<Vec<u8>, DocumentError> {
    let file = pdf.data().as_ref();
    let index = super::index::read(file, pdf.xref().root_id()).map_err(not_updatable)?;
    let mut update = Update {
        objects: Objects::from(file.len() as u64),
        font: GlyphlessFont::default(),
        font_id: ObjectId::new(index.next),
        next: index.next.saturating_add(FONT_OBJECTS),
    };
    // The last line of a file may have no end.
    update.objects.raw(b"\n");
    let mut done = HashSet::new();
    for PageLines { page, size, lines } in lines.iter().filter(|page| !page.lines.is_empty()) {
        let page = page_of(*page)?;
        let id = own_id(pdf, page).ok_or_else(no_object)?;
        // A page that the tree lists more than once has one text.
        if done.insert(id) {
            let to_page = to_page(page, [size.width, size.height])?;
            update.page(page, id, |font, name| layer(lines, to_page, font, name));
        }
    }
    if done.is_empty() {
        return Ok(Vec::new());
    }
    update.font.write(&mut update.objects, update.font_id.number);
    Ok(update.objects.finish(index.kind, &trailer(&index), update.next))
}

/// Checks that an update of these pages is possible.
///
/// # Errors
///
/// The [`Fault`] of the index, or [`Fault::Damaged`] if a page is no object of its own, or not in the tree of pages.
pub(super) fn check<'a>(
    pdf: &'a Pdf,
    mut pages: impl Iterator<Item = &'a Page<'a>>,
) -> Result<(), Fault> {
    super::index::read(pdf.data().as_ref(), pdf.xref().root_id())?;
    let listed = page_tree::listed(pdf);
    let is_listed = |page: &Page<'_>| {
        own_id(pdf, page).is_some() && page.raw().obj_id().is_some_and(|id| listed.contains(&id))
    };
    if pages.all(is_listed) { Ok(()) } else { Err(Fault::Damaged) }
}

/// The refusal of a file with this fault.
pub(super) fn not_updatable(fault: Fault) -> DocumentError {
    let what = match fault {
        Fault::Damaged => "the index of the PDF is damaged",
        Fault::Encrypted => "the PDF is encrypted",
    };
    DocumentError::NotSearchable { what: what.to_owned() }
}

fn no_object() -> DocumentError {
    not_updatable(Fault::Damaged)
}

/// The id of a page, if it is an object of its own. hayro gives a page within another object the id of that one.
fn own_id(pdf: &Pdf, page: &Page<'_>) -> Option<ObjectId> {
    let id = page.raw().obj_id()?;
    let found = pdf.xref().get::<Dict<'_>>(id)?;
    std::ptr::eq(found.data(), page.raw().data()).then(|| copied::id(id))?
}

/// Maps the pixels of a drawn page to the units of its content.
fn to_page(page: &Page<'_>, [width, height]: [u32; 2]) -> Result<ToPage, DocumentError> {
    let sheet = PageBox::of(page)?;
    let back = sheet.upright.inverse();
    let across = sheet.width / f64::from(width.max(1));
    let down = sheet.height / f64::from(height.max(1));
    let [right_x, right_y, down_x, down_y, left, top] = back.as_coeffs();
    Ok(ToPage([right_x * across, right_y * across, down_x * down, down_y * down, left, top]))
}

/// The entries of the update's trailer: those of the file's, and where its index begins.
fn trailer(index: &Index<'_>) -> Vec<u8> {
    let mut entries = Vec::new();
    copied::entries(&index.trailer, &OF_THE_STREAM, &mut |_| {}, &mut entries);
    entries.extend_from_slice(format!("/Prev {}", index.start).as_bytes());
    entries
}

struct Update {
    objects: Objects,
    font: GlyphlessFont,
    font_id: ObjectId,
    /// The number of the next new object.
    next: u32,
}

impl Update {
    /// Writes the new version of a page.
    fn page(
        &mut self,
        page: &Page<'_>,
        id: ObjectId,
        text: impl FnOnce(&mut GlyphlessFont, &str) -> Vec<u8>,
    ) {
        let name = font_name(&page.resources().fonts);
        let text_id = ObjectId::new(self.next);
        self.next = self.next.saturating_add(1);
        let text = text(&mut self.font, &name);
        self.objects.add_compressed(text_id, "", &text);
        let mut dict = b"<<".to_vec();
        copied::entries(page.raw(), &[b"Contents", b"Resources"], &mut |_| {}, &mut dict);
        dict.extend_from_slice(format!("/Contents[{text_id} ").as_bytes());
        contents(page, &mut dict);
        dict.extend_from_slice(b"]/Resources<<");
        self.resources(page, &name, &mut dict);
        dict.extend_from_slice(b">>>>");
        self.objects.add(id, &dict);
    }

    /// Writes the entries of a page's resources, with the font.
    fn resources(&self, page: &Page<'_>, name: &str, to: &mut Vec<u8>) {
        let of_page = page.resources();
        match page.raw().get::<Dict<'_>>(b"Resources") {
            Some(own) => copied::entries(&own, &[b"Font"], &mut |_| {}, to),
            // They are inherited from the tree of pages.
            None => {
                for (key, part) in [
                    ("ExtGState", &of_page.ext_g_states),
                    ("ColorSpace", &of_page.color_spaces),
                    ("XObject", &of_page.x_objects),
                    ("Pattern", &of_page.patterns),
                    ("Shading", &of_page.shadings),
                    ("Properties", &of_page.properties),
                ] {
                    if !part.is_empty() {
                        to.extend_from_slice(format!("/{key}<<").as_bytes());
                        copied::entries(part, &[], &mut |_| {}, to);
                        to.extend_from_slice(b">>");
                    }
                }
            }
        }
        to.extend_from_slice(b"/Font<<");
        copied::entries(&of_page.fonts, &[], &mut |_| {}, to);
        to.extend_from_slice(format!("/{name} {}>>", self.font_id).as_bytes());
    }
}

/// A name that no other font of the page has.
fn font_name(fonts: &Dict<'_>) -> String {
    let numbered = (1..).map(|number: u32| format!("{FONT_NAME}{number}"));
    let mut names = std::iter::once(FONT_NAME.to_owned()).chain(numbered);
    names.find(|name| !fonts.contains_key(name.as_bytes())).unwrap_or_default()
}

/// Writes references to the streams of a page's content.
fn contents(page: &Page<'_>, to: &mut Vec<u8>) {
    match page.raw().get_raw::<Object<'_>>(b"Contents") {
        // A reference to a stream, or to a list of them.
        Some(MaybeRef::Ref(reference)) => {
            match page.xref().get::<Array<'_>>(ObjectIdentifier::from(reference)) {
                Some(list) => copied::items(&list, &mut |_| {}, to),
                None => to.extend_from_slice(&copied::reference(reference)),
            }
        }
        Some(MaybeRef::NotRef(Object::Array(list))) => copied::items(&list, &mut |_| {}, to),
        _ => {}
    }
}
