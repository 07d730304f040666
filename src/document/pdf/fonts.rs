//! Fonts for text whose font is not in the file.
//!
//! hayro has the 14 standard fonts, which have no Chinese, Japanese or Korean characters. Such text is dropped without
//! a warning unless a font is given here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hayro::hayro_interpret::FontResolverFn;
use hayro::hayro_interpret::font::{FallbackFontQuery, FontData, FontQuery};
use hayro::hayro_interpret::hayro_cmap::CidFamily;

/// Where Debian's packages install a font with Chinese, Japanese and Korean characters. The smallest comes first.
const KNOWN_PLACES: [&str; 6] = [
    // fonts-droid-fallback, 4 MB
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/usr/share/fonts-droid-fallback/truetype/DroidSansFallback.ttf",
    // fonts-wqy-microhei, 5 MB
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    // fonts-wqy-zenhei, 16 MB
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    // fonts-noto-cjk, 20 MB
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/noto/NotoSansCJK-Regular.ttc",
];

/// The fonts that replace those that a file names but does not have. A clone shares their bytes.
#[derive(Clone, Default)]
pub struct Fonts {
    cjk: Option<Arc<Vec<u8>>>,
}

impl std::fmt::Debug for Fonts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.cjk.as_ref().map(|font| font.len());
        f.debug_struct("Fonts").field("cjk_bytes", &bytes).finish()
    }
}

impl Fonts {
    /// Fonts with `cjk`, a TrueType or OpenType font or collection, for Chinese, Japanese and Korean text.
    pub fn with_cjk(cjk: Vec<u8>) -> Self {
        Self { cjk: Some(Arc::new(cjk)) }
    }

    /// Reads a font for Chinese, Japanese and Korean text.
    ///
    /// A worker calls it before it gives up the right to open files.
    ///
    /// # Errors
    ///
    /// The error of reading the file.
    pub fn load(font: &Path) -> io::Result<Self> {
        fs::read(font).map(Self::with_cjk)
    }

    /// The first known place that has a font.
    pub fn installed() -> Option<PathBuf> {
        KNOWN_PLACES.iter().map(PathBuf::from).find(|place| place.is_file())
    }

    /// What hayro calls for a font that is not in the file.
    pub(super) fn resolver(&self) -> FontResolverFn {
        let cjk = self.cjk.clone();
        Arc::new(move |query| match query {
            FontQuery::Standard(font) => Some(font.get_font_data()),
            FontQuery::Fallback(wanted) => match (&cjk, needs_cjk(wanted)) {
                (Some(font), true) => Some((Arc::clone(font) as FontData, 0)),
                _ => Some(wanted.pick_standard_font().get_font_data()),
            },
        })
    }
}

/// Whether the font that is missing has Chinese, Japanese or Korean characters.
fn needs_cjk(wanted: &FallbackFontQuery) -> bool {
    let collection = wanted.character_collection.as_ref();
    collection.is_some_and(|collection| {
        matches!(
            collection.family,
            CidFamily::AdobeGB1
                | CidFamily::AdobeCNS1
                | CidFamily::AdobeJapan1
                | CidFamily::AdobeKorea1
        )
    })
}
