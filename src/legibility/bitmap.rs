//! Pictures of one bit a pixel.

/// The pixels of a word.
pub(super) const WORD: usize = 64;

/// The side of a block in pixels: a byte of a word. Blocks are either blank or not.
pub(super) const BLOCK: usize = 8;

/// A picture of one bit a pixel. Each row starts a new word; the lowest bit is at the left. Bits past the end of a row
/// are not set.
pub(super) struct Bitmap {
    /// The pixels of a row.
    pub(super) width: usize,
    /// The words of a row.
    pub(super) stride: usize,
    words: Vec<u64>,
}

impl Bitmap {
    /// Nothing is set.
    pub(super) fn new(width: usize, height: usize) -> Self {
        let stride = width.div_ceil(WORD);
        Self { width, stride, words: vec![0; stride * height] }
    }

    /// The rows from top to bottom.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = &[u64]> {
        self.words.chunks_exact(self.stride)
    }

    /// The rows from top to bottom, to set bits.
    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [u64]> {
        self.words.chunks_exact_mut(self.stride)
    }

    /// The bits of 64 columns of a row, from a column on; zero where there is none.
    pub(super) fn word(&self, y: usize, x: usize) -> u64 {
        let (at, shift) = (x / WORD, x % WORD);
        let row = self.words.get(y * self.stride..).unwrap_or_default();
        let row = &row[..row.len().min(self.stride)];
        let word = |at: usize| row.get(at).copied().unwrap_or_default();
        if shift == 0 { word(at) } else { word(at) >> shift | word(at + 1) << (WORD - shift) }
    }
}

/// Multiplied by it, eight bytes that are zero or one have the bit of byte `i` at `56 + i`.
const GATHER: u64 = 0x0102_0408_1020_4080;

/// The word of the pairs, at most 64, for which `is_set`.
#[inline]
pub(super) fn word_of(one: &[u8], other: &[u8], is_set: impl Fn(u8, u8) -> bool) -> u64 {
    let mut bytes = [0_u8; WORD];
    for (byte, (one, other)) in bytes.iter_mut().zip(one.iter().zip(other)) {
        *byte = u8::from(is_set(*one, *other));
    }
    let (eights, _) = bytes.as_chunks::<8>();
    eights
        .iter()
        .rev()
        .fold(0, |word, eight| word << 8 | u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56)
}

/// The starts and ends of the runs of set bits of a row, in turn.
pub(super) fn edges(row: &[u64]) -> impl Iterator<Item = u32> {
    let mut carry = 0;
    // A word of zeros behind the last ends its last run.
    let words = row.iter().copied().chain([0]);
    (0_u32..).step_by(WORD).zip(words).flat_map(move |(start, word)| {
        let mut changes = word ^ (word << 1 | carry);
        carry = word >> (WORD - 1);
        std::iter::from_fn(move || {
            let at = changes.trailing_zeros();
            // Clears the lowest bit that is set.
            changes &= changes.checked_sub(1)?;
            Some(start + at)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bitmap(bits: &[bool]) -> Bitmap {
        let mut bitmap = Bitmap::new(bits.len(), 1);
        let levels: Vec<u8> = bits.iter().map(|bit| u8::from(*bit)).collect();
        for (word, levels) in bitmap.rows_mut().flatten().zip(levels.chunks(WORD)) {
            *word = word_of(levels, levels, |level, _| level == 1);
        }
        bitmap
    }

    proptest! {
        #[test]
        fn the_edges_of_a_row_are_where_its_bits_change(
            bits in proptest::collection::vec(any::<bool>(), 1..200),
        ) {
            let bitmap = bitmap(&bits);
            let found: Vec<u32> = bitmap.rows().flat_map(edges).collect();
            let bit = |at: usize| bits.get(at).copied().unwrap_or_default();
            let changes = (0..=bits.len()).filter(|at| bit(*at) != (*at > 0 && bit(at - 1)));
            let changes: Vec<u32> = changes.map(|at| u32::try_from(at).unwrap()).collect();
            prop_assert_eq!(found, changes);
        }

        #[test]
        fn a_word_from_any_column_has_the_bits_that_exist(
            bits in proptest::collection::vec(any::<bool>(), 1..200), from in 0_usize..300,
        ) {
            let word = bitmap(&bits).word(0, from);
            for at in 0..WORD {
                let bit = bits.get(from + at).copied().unwrap_or_default();
                prop_assert_eq!(word >> at & 1 == 1, bit);
            }
            prop_assert_eq!(bitmap(&bits).word(1, from), 0);
        }
    }
}
