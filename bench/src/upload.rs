//! One picture in the three forms in which it is posted.
//!
//! The gateway's own path gets the file, by itself or in a form; its drop-in path gets JSON. The
//! direct connection and nginx get the JSON that the gateway would make from it, byte for byte, so
//! that the upstream always receives the same. The pictures differ only in their bytes: all have
//! the same width and height, so that the upstream can answer the same bill for each without
//! reading it, and the gateway, which compares bill and estimate, finds no mismatch.

/// The picture's sides in pixels.
const WIDTH: u16 = 2048;
/// The picture's sides in pixels.
const HEIGHT: u16 = 2880;

/// The cap of the tenant: a quarter of the picture, so that the cap takes effect and the sides are
/// halved, to 1024 × 1440.
pub(crate) const MAX_PIXELS: u32 = 1024 * 1440;

/// The cost of the capped picture: a token for each cell of 32 × 32 pixels, and two (Model Studio,
/// "Text extraction (Qwen-OCR)").
pub(crate) const IMAGE_TOKENS: u32 = MAX_PIXELS / (32 * 32) + 2;

/// The minimum pixels at which a picture is read, by the gateway's default configuration.
const MIN_PIXELS: u32 = 3072;

/// The model, by the gateway's default configuration.
pub(crate) const MODEL: &str = "qwen-vl-ocr-2025-11-20";

/// The media type of the file.
pub(crate) const JPEG: &str = "image/jpeg";

/// The media type of the JSON.
pub(crate) const JSON: &str = "application/json";

/// The boundary between the parts of a form; it does not occur in a picture.
const BOUNDARY: &str = "------------------------gateway-bench-4711";

/// The media type of a form.
const MULTIPART: &str = "multipart/form-data; boundary=------------------------gateway-bench-4711";

/// A picture of one of the measured sizes.
#[derive(Debug)]
pub(crate) struct Upload {
    /// The name of the size in the table.
    pub(crate) name: &'static str,
    /// The JPEG.
    pub(crate) file: Vec<u8>,
}

/// The form in which a picture is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The file itself.
    File,
    /// The file in `multipart/form-data`, as sent by curl's `-F` and by browsers.
    Multipart,
    /// The JSON that the gateway would make from it.
    Json,
}

impl Form {
    pub(crate) const ALL: [Self; 3] = [Self::File, Self::Multipart, Self::Json];

    /// The suffix of its file name.
    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::File => "jpeg",
            Self::Multipart => "multipart",
            Self::Json => "json",
        }
    }

    /// Its media type.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::File => JPEG,
            Self::Multipart => MULTIPART,
            Self::Json => JSON,
        }
    }

    /// The body that is posted.
    pub(crate) fn body(self, upload: &Upload) -> Vec<u8> {
        match self {
            Self::File => upload.file.clone(),
            Self::Multipart => upload.multipart(),
            Self::Json => upload.json(),
        }
    }
}

/// Whether a stream is requested to include its usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Billing {
    /// It is requested.
    Told,
    /// It is not requested, so that a gateway must request it and hide it from the caller.
    Hidden,
}

impl Upload {
    /// The three sizes, from a photographed receipt to a scanned page of 300 dpi.
    pub(crate) fn all() -> [Self; 3] {
        [("60 KB", 60_000), ("500 KB", 500_000), ("5 MB", 5_000_000)]
            .map(|(name, bytes)| Self { name, file: jpeg(bytes) })
    }

    /// A picture of so many bytes.
    pub(crate) fn of(bytes: usize) -> Self {
        Self { name: "", file: jpeg(bytes) }
    }

    /// The file as text.
    pub(crate) fn base64(&self) -> String {
        base64_simd::STANDARD.encode_to_string(&self.file)
    }

    /// The JSON that the gateway makes from the file.
    pub(crate) fn json(&self) -> Vec<u8> {
        self.json_with("")
    }

    /// The same JSON with a request for a stream: the gateway passes it on unchanged if it includes
    /// the usage, and otherwise adds that option.
    pub(crate) fn stream_json(&self, bill: Billing) -> Vec<u8> {
        self.json_with(match bill {
            Billing::Told => r#","stream":true,"stream_options":{"include_usage":true}"#,
            Billing::Hidden => r#","stream":true"#,
        })
    }

    /// The file as the only part of a form.
    fn multipart(&self) -> Vec<u8> {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"page.jpg\"\r\n\
             Content-Type: {JPEG}\r\n\r\n"
        );
        let end = format!("\r\n--{BOUNDARY}--\r\n");
        [head.as_bytes(), &self.file, end.as_bytes()].concat()
    }

    fn json_with(&self, more: &str) -> Vec<u8> {
        let data = self.base64();
        let bounds = format!(r#""min_pixels":{MIN_PIXELS},"max_pixels":{MAX_PIXELS}"#);
        let url = format!(r#""image_url":{{"url":"data:image/jpeg;base64,{data}",{bounds}}}"#);
        let content = format!(r#"[{{"type":"image_url",{url},{bounds}}}]"#);
        let messages = format!(r#"[{{"role":"user","content":{content}}}]"#);
        format!(r#"{{"messages":{messages},"model":"{MODEL}","max_tokens":8192{more}}}"#)
            .into_bytes()
    }
}

/// A JPEG of exactly `bytes` bytes with a valid header and noise as its picture: no hop decodes it.
/// It is the same for the same length.
fn jpeg(bytes: usize) -> Vec<u8> {
    let mut file = vec![0xff, 0xd8];
    segment(&mut file, 0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    segment(&mut file, 0xdb, &[&[0][..], &[16; 64]].concat());
    let ([h0, h1], [w0, w1]) = (HEIGHT.to_be_bytes(), WIDTH.to_be_bytes());
    segment(&mut file, 0xc0, &[8, h0, h1, w0, w1, 1, 1, 0x11, 0]);
    segment(&mut file, 0xda, &[1, 1, 0, 0, 63, 0]);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while file.len() < bytes - 2 {
        // Xorshift (Marsaglia 2003). A marker's first byte must not occur within the data.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.push(state.to_le_bytes()[4].min(0xfe));
    }
    file.extend([0xff, 0xd9]);
    file
}

fn segment(file: &mut Vec<u8>, marker: u8, content: &[u8]) {
    file.extend([0xff, marker, 0, u8::try_from(content.len() + 2).unwrap_or(u8::MAX)]);
    file.extend(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_size_that_was_asked_for_and_is_the_same_each_time() {
        let [small, ..] = Upload::all();
        assert_eq!(small.file.len(), 60_000);
        assert_eq!(small.file, jpeg(60_000));
        assert!(small.file.starts_with(b"\xff\xd8\xff\xe0") && small.file.ends_with(b"\xff\xd9"));
    }

    #[test]
    fn a_form_names_its_boundary_and_holds_the_whole_file() {
        assert!(MULTIPART.ends_with(BOUNDARY));
        let upload = Upload { name: "", file: jpeg(1000) };
        let form = Form::Multipart.body(&upload);
        assert!(form.starts_with(format!("--{BOUNDARY}\r\n").as_bytes()));
        assert!(form.windows(1000).any(|window| window == upload.file));
    }

    #[test]
    fn noise_holds_no_marker() {
        let file = jpeg(4096);
        let scan = file.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        assert!(!file[scan + 10..file.len() - 2].contains(&0xff));
    }

    #[test]
    fn the_json_holds_the_whole_file() {
        let upload = Upload { name: "", file: jpeg(1000) };
        let json = String::from_utf8(upload.json()).unwrap();
        let data = json.split_once(";base64,").unwrap().1.split_once('"').unwrap().0;
        assert_eq!(base64_simd::STANDARD.decode_to_vec(data).unwrap(), upload.file);
    }
}
