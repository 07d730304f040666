//! A PDF of pictures, one a page.
//!
//! The pictures come first, before they are read, and the pages with their text last, so that neither waits for the
//! other. Two independent steps of a worker make the two parts, so the numbers of the objects are fixed: object 1 is
//! the catalog, 2 the tree of pages, and picture `n` is object `n + 2`.

use std::fmt::Write as _;

use super::font::{FONT_OBJECTS, GlyphlessFont};
use super::layer::{ToPage, layer};
use super::object::{IndexKind, ObjectId, Objects, matrix, number};
use super::picture::Enclosed;
use crate::document::page::{PageLines, PicturePage};
use crate::image::Size;

/// The start of the file. Bytes above 127 tell programs that it is binary.
pub(in crate::document) const HEADER: &[u8] = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n";

const CATALOG: ObjectId = ObjectId::new(1);
const TREE: ObjectId = ObjectId::new(2);

/// The page of a picture that could not be taken in: A4.
const EMPTY_PAGE: [f64; 2] = [595.0, 842.0];

/// The picture with this index, counted from 0.
const fn picture_id(index: u32) -> ObjectId {
    ObjectId::new(index.saturating_add(3))
}

/// A picture, as it stands in the file.
pub(in crate::document) fn picture(index: u32, enclosed: &Enclosed) -> Vec<u8> {
    let mut objects = Objects::from(0);
    objects.add_stream(picture_id(index), &enclosed.entries, &enclosed.data);
    objects.into_bytes()
}

/// A page in the making.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(in crate::document) struct AlbumPage {
    /// The number of the page in the document that it is from.
    pub(in crate::document) number: u32,
    /// The picture, and the length of its object; none if it could not be taken in.
    pub(in crate::document) picture: Option<(PicturePage, u64)>,
}

/// The rest of the file, after the header and the pictures: the pages with their text, and the index.
pub(in crate::document) fn rest(pages: &[AlbumPage], lines: &[PageLines]) -> Vec<u8> {
    let lengths = pages.iter().filter_map(|page| page.picture).map(|(_, length)| length);
    let start = lengths.sum::<u64>().saturating_add(HEADER.len() as u64);
    let mut objects = Objects::of_new_file(start);
    let count = u32::try_from(pages.len()).unwrap_or(u32::MAX);
    let font_number = picture_id(count).number;
    let mut next = font_number.saturating_add(FONT_OBJECTS);
    let (mut font, mut kids) = (GlyphlessFont::default(), String::new());
    let mut place = HEADER.len() as u64;
    for (index, page) in (0..).zip(pages) {
        let (content_id, page_id) = (ObjectId::new(next), ObjectId::new(next.saturating_add(1)));
        next = next.saturating_add(2);
        let _ = write!(kids, "{page_id} ");
        let mut content = Vec::new();
        let mut resources = format!("/Font<</OcrText {}>>", ObjectId::new(font_number));
        let [width, height] = page.picture.map_or(EMPTY_PAGE, |(picture, _)| picture.points);
        if let Some((picture, length)) = page.picture {
            objects.note(picture_id(index), place);
            place = place.saturating_add(length);
            let _ = write!(resources, "/XObject<</Im0 {}>>", picture_id(index));
            content = format!("q {} cm/Im0 Do Q\n", matrix(picture.placement)).into_bytes();
        } else {
            objects.add(picture_id(index), b"null");
        }
        if let Some(PageLines { size, lines, .. }) = lines.iter().find(|it| it.page == page.number)
        {
            content.extend(layer(lines, to_page(*size, [width, height]), &mut font, "OcrText"));
        }
        objects.add_compressed(content_id, "", &content);
        let [width, height] = [width, height].map(number);
        let page = format!(
            "<</Type/Page/Parent {TREE}/MediaBox[0 0 {width} {height}]/Resources<<{resources}>>/Contents {content_id}>>"
        );
        objects.add(page_id, page.as_bytes());
    }
    font.write(&mut objects, font_number);
    let tree = format!("<</Type/Pages/Count {count}/Kids[{}]>>", kids.trim_end());
    objects.add(TREE, tree.as_bytes());
    objects.add(CATALOG, format!("<</Type/Catalog/Pages {TREE}>>").as_bytes());
    objects.finish(IndexKind::Table, format!("/Root {CATALOG}").as_bytes(), next)
}

/// Maps pixels to an upright page of these points.
fn to_page(size: Size, [width, height]: [f64; 2]) -> ToPage {
    let across = width / f64::from(size.width.max(1));
    let down = height / f64::from(size.height.max(1));
    ToPage([across, 0.0, 0.0, -down, 0.0, height])
}
