//! The font of the invisible text.
//!
//! It has one glyph, which paints nothing, and a code of its own for each character of the document, in the order in
//! which they first occur. A table says which characters a code stands for (`ToUnicode`), so all scripts are served
//! alike, also characters beyond the first 65,536 and letters with several marks. One font serves all pages.

use std::collections::HashMap;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

use super::object::{ObjectId, Objects};

/// The most codes of a font, which have two bytes. Code 0 is for what has none.
const MOST_CODES: usize = 0xffff;

/// What the characters become that are beyond [`MOST_CODES`].
const REPLACEMENT: &str = "\u{fffd}";

/// The most bytes of the characters of one code.
const LONGEST_CLUSTER: usize = 64;

/// The objects that the font consists of.
pub(in crate::document) const FONT_OBJECTS: u32 = 6;

/// Advance of a space, in thousandths of the height of the text.
pub(super) const SPACE: u16 = 278;

/// Advance of a letter whose width is unknown.
const LETTER: u16 = 556;

/// Advance of a character that fills a square, as Chinese ones do.
const SQUARE: u16 = 1000;

/// The advances of the characters from `!` to `~`, in thousandths: those of Helvetica, which most fonts resemble. So a
/// word that is found is marked where it stands in the picture.
const ADVANCES: [u16; 94] = [
    278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556,
    556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611,
    778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667,
    611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222,
    833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];

/// The lines of one point of text reach this far over and under the baseline, in thousandths. The baseline is the lower
/// edge of the box, because some viewers mark a character from its baseline upwards. It is not quite the edge, because
/// others take a depth of 0 for unknown.
const ASCENT: i16 = 999;
const DESCENT: i16 = -1;

/// The characters of a document and their codes.
#[derive(Debug, Default)]
pub(in crate::document) struct GlyphlessFont {
    codes: HashMap<Box<str>, u16>,
    /// The characters and the advance of each code, from 1.
    glyphs: Vec<(Box<str>, u16)>,
}

impl GlyphlessFont {
    /// The code of a character with its marks, and its advance in thousandths.
    pub(super) fn code(&mut self, cluster: &str) -> (u16, u16) {
        let cluster = &cluster[..cluster.floor_char_boundary(LONGEST_CLUSTER)];
        if let Some(code) = self.codes.get(cluster) {
            return (*code, advance(cluster));
        }
        // The last code is kept for the replacement.
        let is_full = self.glyphs.len().saturating_add(1) >= MOST_CODES;
        if is_full && cluster != REPLACEMENT {
            return self.code(REPLACEMENT);
        }
        let advance = advance(cluster);
        self.glyphs.push((cluster.into(), advance));
        let code = u16::try_from(self.glyphs.len()).unwrap_or(u16::MAX);
        self.codes.insert(cluster.into(), code);
        (code, advance)
    }

    /// Writes the font as objects from number `first` on, [`FONT_OBJECTS`] in all. The first is the font.
    pub(in crate::document) fn write(&self, objects: &mut Objects, first: u32) {
        let id = |offset: u32| ObjectId::new(first.saturating_add(offset));
        let font = format!(
            "<</Type/Font/Subtype/Type0/BaseFont/OcrText/Encoding/Identity-H/DescendantFonts[{}]/ToUnicode {}>>",
            id(1),
            id(4)
        );
        objects.add(id(0), font.as_bytes());
        let descendant = format!(
            "<</Type/Font/Subtype/CIDFontType2/BaseFont/OcrText/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)\
             /Supplement 0>>/FontDescriptor {}/CIDToGIDMap {}/DW {LETTER}/W{}>>",
            id(2),
            id(5),
            self.advances()
        );
        objects.add(id(1), descendant.as_bytes());
        let descriptor = format!(
            "<</Type/FontDescriptor/FontName/OcrText/Flags 4/FontBBox[0 {DESCENT} 1000 {ASCENT}]/ItalicAngle 0\
             /Ascent {ASCENT}/Descent {DESCENT}/CapHeight {ASCENT}/StemV 80/FontFile2 {}>>",
            id(3)
        );
        objects.add(id(2), descriptor.as_bytes());
        let file = true_type();
        objects.add_compressed(id(3), &format!("/Length1 {}", file.len()), &file);
        objects.add_compressed(id(4), "", self.meanings().as_bytes());
        // All codes have the same glyph.
        let glyphs = [0, 1].repeat(self.glyphs.len());
        objects.add_compressed(id(5), "", &[&[0, 0], &glyphs[..]].concat());
    }

    /// The advances that are not the default, by runs of codes.
    fn advances(&self) -> String {
        let mut runs = "[".to_owned();
        let mut is_open = false;
        for (code, (_, advance)) in (1_u32..).zip(&self.glyphs) {
            if *advance == LETTER {
                runs.push_str(if is_open { "]" } else { "" });
                is_open = false;
                continue;
            }
            let _ = if is_open {
                write!(runs, " {advance}")
            } else {
                write!(runs, " {code}[{advance}")
            };
            is_open = true;
        }
        runs.push_str(if is_open { "]]" } else { "]" });
        runs
    }

    /// What each code stands for, as a `CMap` (Adobe Technical Note 5411).
    fn meanings(&self) -> String {
        let mut map = "/CIDInit/ProcSet findresource begin\n12 dict begin\nbegincmap\n/CIDSystemInfo<</Registry(Adobe)\
                       /Ordering(UCS)/Supplement 0>>def\n/CMapName/OcrText def\n/CMapType 2 def\n\
                       1 begincodespacerange\n<0000><FFFF>\nendcodespacerange\n"
            .to_owned();
        let numbered: Vec<_> = (1_u32..).zip(&self.glyphs).collect();
        for block in numbered.chunks(100) {
            let _ = writeln!(map, "{} beginbfchar", block.len());
            for (code, (cluster, _)) in block {
                let _ = write!(map, "<{code:04X}><");
                for unit in cluster.encode_utf16() {
                    let _ = write!(map, "{unit:04X}");
                }
                map.push_str(">\n");
            }
            map.push_str("endbfchar\n");
        }
        map.push_str("endcmap\nCMapName currentdict/CMap defineresource pop\nend\nend\n");
        map
    }
}

/// The advance of a character with its marks, in thousandths of the height of the text.
fn advance(cluster: &str) -> u16 {
    let base = cluster.chars().next().unwrap_or(' ');
    if base == ' ' {
        return SPACE;
    }
    let index = u32::from(base).checked_sub(u32::from('!')).and_then(|at| usize::try_from(at).ok());
    match index.and_then(|index| ADVANCES.get(index)) {
        Some(advance) => *advance,
        None if cluster.width() >= 2 => SQUARE,
        None => LETTER,
    }
}

/// A TrueType font of two glyphs. The second is a line from the baseline to the top of the text. It has no area, so it
/// paints nothing, but viewers take its height for that of the mark over a character that is found.
fn true_type() -> Vec<u8> {
    let words =
        |values: &[i16]| -> Vec<u8> { values.iter().flat_map(|it| it.to_be_bytes()).collect() };
    let mut head: Vec<u8> = Vec::new();
    // Version, revision, sum (set below), magic number.
    for value in [0x0001_0000_u32, 0x0001_0000, 0, 0x5f0f_3cf5] {
        head.extend_from_slice(&value.to_be_bytes());
    }
    // Flags, units, two dates, the box of all glyphs, style, smallest size, direction, formats.
    let rest = [0, 1000, 0, 0, 0, 0, 0, 0, 0, 0, 0, DESCENT, 1000, ASCENT, 0, 8, 2, 0, 0];
    head.extend_from_slice(&words(&rest));
    // One contour within a box, its last point, no instructions; two points on the curve. Only the height of the second
    // differs from zero.
    let line = [&words(&[1, 0, 0, 0, ASCENT, 1, 0])[..], &[0x31, 0x11], &words(&[ASCENT])].concat();
    let half_its_length = i16::try_from(line.len() / 2).unwrap_or(0);
    let tables: [(&[u8; 4], Vec<u8>); 6] = [
        (b"glyf", line),
        (b"head", head),
        (b"hhea", words(&[1, 0, ASCENT, DESCENT, 0, 1000, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1])),
        (b"hmtx", words(&[556, 0, 0])),
        (b"loca", words(&[0, 0, half_its_length])),
        (b"maxp", words(&[1, 0, 2, 2, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0])),
    ];
    let mut file = Vec::new();
    file.extend_from_slice(&0x0001_0000_u32.to_be_bytes());
    // The number of tables, and what a binary search among them needs.
    file.extend_from_slice(&words(&[6, 64, 2, 32]));
    let mut place = 12 + 16 * 6_u32;
    let mut data = Vec::new();
    let mut sum_place = 0;
    for (tag, mut table) in tables {
        let length = u32::try_from(table.len()).unwrap_or(0);
        table.resize(table.len().next_multiple_of(4), 0);
        if tag == b"head" {
            sum_place = place + 8;
        }
        file.extend_from_slice(tag);
        for value in [checksum(&table), place, length] {
            file.extend_from_slice(&value.to_be_bytes());
        }
        place += u32::try_from(table.len()).unwrap_or(0);
        data.extend_from_slice(&table);
    }
    file.extend_from_slice(&data);
    let adjustment = 0xb1b0_afba_u32.wrapping_sub(checksum(&file));
    let sum_place = sum_place as usize;
    if let Some(sum) = file.get_mut(sum_place..sum_place + 4) {
        sum.copy_from_slice(&adjustment.to_be_bytes());
    }
    file
}

/// The sum of all 32-bit numbers.
fn checksum(bytes: &[u8]) -> u32 {
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers.iter().fold(0, |sum: u32, number| sum.wrapping_add(u32::from_be_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_keeps_its_code_and_gets_the_advance_of_its_kind() {
        let mut font = GlyphlessFont::default();
        assert_eq!(font.code("A"), (1, 667));
        assert_eq!(font.code("漢"), (2, SQUARE));
        assert_eq!(font.code(" "), (3, SPACE));
        assert_eq!(font.code("ж"), (4, LETTER));
        assert_eq!(font.code("A"), (1, 667));
        assert_eq!(font.advances(), "[ 1[667 1000 278]]");
    }

    #[test]
    fn a_code_stands_for_all_characters_of_a_cluster_also_beyond_16_bits() {
        let mut font = GlyphlessFont::default();
        font.code("e\u{301}");
        font.code("𠮷");
        let map = font.meanings();
        assert!(
            map.contains("2 beginbfchar\n<0001><00650301>\n<0002><D842DFB7>\nendbfchar"),
            "{map}"
        );
    }

    #[test]
    fn a_document_with_more_characters_than_codes_gets_replacements() {
        let mut font = GlyphlessFont::default();
        let all: Vec<char> = (0x1_0000_u32..0x3_0000).filter_map(char::from_u32).collect();
        let codes: Vec<u16> = all.iter().map(|it| font.code(&it.to_string()).0).collect();
        assert_eq!(codes[0], 1);
        assert_eq!(*codes.last().unwrap(), u16::MAX);
        assert_eq!(font.glyphs.len(), MOST_CODES);
        assert_eq!(&*font.glyphs.last().unwrap().0, REPLACEMENT);
    }

    #[test]
    fn the_sum_of_the_font_file_is_the_one_that_readers_check() {
        let file = true_type();
        assert_eq!(checksum(&file), 0xb1b0_afba);
        assert_eq!(file.len() % 4, 0);
    }
}
