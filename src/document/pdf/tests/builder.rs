//! Writes small PDF files for tests.

use std::fmt::Write as _;

use bytes::Bytes;

/// A file in the making. Its catalog is object 1, its page tree is object 2.
pub(in crate::document::pdf) struct Builder {
    objects: Vec<Vec<u8>>,
    pages: Vec<usize>,
    catalog: String,
}

impl Builder {
    pub(in crate::document::pdf) fn new() -> Self {
        Self { objects: Vec::new(), pages: Vec::new(), catalog: String::new() }
    }

    /// A file of one page of 200 x 100 points with `attributes` and content.
    pub(in crate::document::pdf) fn single(attributes: &str, content: &[u8]) -> Bytes {
        let mut file = Self::new();
        file.page(attributes, content);
        file.bytes()
    }

    /// Adds an object, and gives its number.
    pub(in crate::document::pdf) fn object(&mut self, text: &str) -> usize {
        self.objects.push(text.as_bytes().to_vec());
        self.objects.len() + 2
    }

    /// The number of the object that is added next.
    pub(in crate::document::pdf) fn next(&self) -> usize {
        self.objects.len() + 3
    }

    /// Adds a stream, and gives its number.
    pub(in crate::document::pdf) fn stream(&mut self, entries: &str, data: &[u8]) -> usize {
        let mut object = format!("<< {entries} /Length {} >>\nstream\n", data.len()).into_bytes();
        object.extend_from_slice(data);
        object.extend_from_slice(b"\nendstream");
        self.objects.push(object);
        self.objects.len() + 2
    }

    /// Adds a page. Attributes come before the defaults, and the first mention counts.
    pub(in crate::document::pdf) fn page(&mut self, attributes: &str, content: &[u8]) -> usize {
        let content = self.stream("", content);
        let box_ = if attributes.contains("/MediaBox") { "" } else { "/MediaBox [0 0 200 100]" };
        let page = self.object(&format!(
            "<< /Type /Page /Parent 2 0 R {attributes} {box_} /Contents {content} 0 R >>"
        ));
        self.pages.push(page);
        page
    }

    /// Lists a page once more.
    pub(in crate::document::pdf) fn list(&mut self, page: usize) {
        self.pages.push(page);
    }

    pub(in crate::document::pdf) fn bytes(self) -> Bytes {
        let mut kids = String::new();
        for page in &self.pages {
            let _ = write!(kids, "{page} 0 R ");
        }
        let mut objects = vec![
            format!("<< /Type /Catalog /Pages 2 0 R {} >>", self.catalog).into_bytes(),
            format!("<< /Type /Pages /Count {} /Kids [{kids}] >>", self.pages.len()).into_bytes(),
        ];
        objects.extend(self.objects);
        let mut file = b"%PDF-1.7\n".to_vec();
        let mut index = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
        for (number, object) in objects.iter().enumerate() {
            let _ = writeln!(index, "{:010} 00000 n ", file.len());
            file.extend_from_slice(format!("{} 0 obj\n", number + 1).as_bytes());
            file.extend_from_slice(object);
            file.extend_from_slice(b"\nendobj\n");
        }
        let start = file.len();
        let size = objects.len() + 1;
        file.extend_from_slice(index.as_bytes());
        let trailer = format!("trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF");
        file.extend_from_slice(trailer.as_bytes());
        file.into()
    }
}

/// A JPEG of a gradient, gray or in colors.
pub(in crate::document::pdf) fn jpeg(
    width: u16,
    height: u16,
    color: jpeg_encoder::ColorType,
) -> Vec<u8> {
    let samples = if matches!(color, jpeg_encoder::ColorType::Luma) { 1 } else { 3 };
    let levels: Vec<u8> = (0..usize::from(width) * usize::from(height) * samples)
        .map(|at| u8::try_from(at * 7 % 251).unwrap_or_default())
        .collect();
    let mut file = Vec::new();
    jpeg_encoder::Encoder::new(&mut file, 80).encode(&levels, width, height, color).unwrap();
    file
}
