//! Writes small PDF files for tests: pages of any size with lines of text, drawn so that only an image shows the text or
//! kept as text.

use std::fmt::Write as _;

/// One page.
#[derive(Debug, Clone)]
pub(crate) struct PdfPage {
    /// Width and height in points.
    size: [u32; 2],
    /// Clockwise quarter turns of a viewer, as degrees.
    rotate: u32,
    lines: Vec<String>,
    /// A JPEG that covers the page.
    picture: Option<Picture>,
}

/// A JPEG.
#[derive(Debug, Clone)]
struct Picture {
    jpeg: Vec<u8>,
    /// Width and height.
    pixels: [u32; 2],
    /// The name of its colours in a PDF.
    colours: &'static str,
}

impl PdfPage {
    /// A page of these points with some lines of text.
    pub(crate) fn of_text(width: u32, height: u32, lines: &[&str]) -> Self {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Self { size: [width, height], rotate: 0, lines, picture: None }
    }

    /// A page of these points that is nothing but a gray JPEG of so many pixels.
    pub(crate) fn of_picture(width: u32, height: u32, jpeg: Vec<u8>, pixels: [u32; 2]) -> Self {
        Self::of_jpeg([width, height], Picture { jpeg, pixels, colours: "/DeviceGray" })
    }

    /// A page of these points that is nothing but a JPEG with colours of so many pixels.
    pub(crate) fn of_photo(width: u32, height: u32, jpeg: Vec<u8>, pixels: [u32; 2]) -> Self {
        Self::of_jpeg([width, height], Picture { jpeg, pixels, colours: "/DeviceRGB" })
    }

    fn of_jpeg(size: [u32; 2], picture: Picture) -> Self {
        Self { size, rotate: 0, lines: Vec::new(), picture: Some(picture) }
    }

    /// The page with a `/Rotate` of so many degrees.
    pub(crate) fn turned(self, rotate: u32) -> Self {
        Self { rotate, ..self }
    }

    fn content(&self) -> String {
        let [width, height] = self.size;
        if self.picture.is_some() {
            return format!("q {width} 0 0 {height} 0 0 cm /Im0 Do Q");
        }
        let mut content = "BT /F1 18 Tf 22 TL 36 ".to_owned();
        write!(content, "{} Td", height.saturating_sub(54)).unwrap();
        for line in &self.lines {
            let line = line.replace('\\', "\\\\").replace('(', "\\(").replace(')', "\\)");
            write!(content, " ({line}) Tj T*").unwrap();
        }
        content.push_str(" ET");
        content
    }
}

/// A PDF file of these pages.
pub(crate) fn pdf(pages: &[PdfPage]) -> Vec<u8> {
    let mut objects: Vec<Vec<u8>> = Vec::new();
    let number = |index: usize| 4 + 3 * index;
    let kids: Vec<_> = (0..pages.len()).map(|index| format!("{} 0 R", number(index))).collect();
    let kids = kids.join(" ");
    objects.push(b"<< /Type /Catalog /Pages 2 0 R >>".to_vec());
    objects.push(format!("<< /Type /Pages /Count {} /Kids [{kids}] >>", pages.len()).into());
    objects.push(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_vec());
    for (index, page) in pages.iter().enumerate() {
        let ([width, height], first) = (page.size, number(index));
        objects.push(
            format!(
                "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width} {height}] /Rotate {} /Contents {} 0 R \
                 /Resources << /Font << /F1 3 0 R >> /XObject << /Im0 {} 0 R >> >> >>",
                page.rotate,
                first + 1,
                first + 2
            )
            .into(),
        );
        let content = page.content();
        objects
            .push(format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()).into());
        objects.push(match &page.picture {
            None => b"null".to_vec(),
            Some(Picture { jpeg, pixels: [width, height], colours }) => {
                let head = format!(
                    "<< /Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace {colours} \
                     /BitsPerComponent 8 /Filter /DCTDecode /Length {} >>\nstream\n",
                    jpeg.len()
                );
                [head.as_bytes(), jpeg, b"\nendstream"].concat()
            }
        });
    }
    written(&objects)
}

/// The file with its table of objects.
fn written(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut file = b"%PDF-1.7\n".to_vec();
    let mut places = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        places.push(file.len());
        file.extend(format!("{} 0 obj\n", index + 1).bytes());
        file.extend_from_slice(object);
        file.extend_from_slice(b"\nendobj\n");
    }
    let table = file.len();
    file.extend(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).bytes());
    for place in places {
        file.extend(format!("{place:010} 00000 n \n").bytes());
    }
    let size = objects.len() + 1;
    file.extend(
        format!("trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n").bytes(),
    );
    file
}
