//! Reads a number at an offset, in either byte order. The result is `None` if the bytes end before the number does.

/// The byte order of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    /// The most significant byte is first.
    Big,
    /// The least significant byte is first.
    Little,
}

impl ByteOrder {
    /// The 16-bit number at `offset`.
    pub(crate) fn u16(self, bytes: &[u8], offset: usize) -> Option<u16> {
        let number = *bytes.get(offset..)?.first_chunk()?;
        Some(match self {
            Self::Big => u16::from_be_bytes(number),
            Self::Little => u16::from_le_bytes(number),
        })
    }

    /// The 32-bit number at `offset`.
    pub(crate) fn u32(self, bytes: &[u8], offset: usize) -> Option<u32> {
        let number = *bytes.get(offset..)?.first_chunk()?;
        Some(match self {
            Self::Big => u32::from_be_bytes(number),
            Self::Little => u32::from_le_bytes(number),
        })
    }

    /// The 64-bit number at `offset`.
    pub(crate) fn u64(self, bytes: &[u8], offset: usize) -> Option<u64> {
        let number = *bytes.get(offset..)?.first_chunk()?;
        Some(match self {
            Self::Big => u64::from_be_bytes(number),
            Self::Little => u64::from_le_bytes(number),
        })
    }
}
