//! A file that is read with a few bytes replaced, without a copy.

use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};

/// Bytes that stand in for those of the file.
pub(super) struct Patch {
    pub(super) start: usize,
    pub(super) bytes: Vec<u8>,
}

/// A reader of a file with patches.
pub(super) struct Patched<'a> {
    pub(super) file: &'a [u8],
    pub(super) patches: Vec<Patch>,
    pub(super) position: usize,
}

impl Read for Patched<'_> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let rest = self.file.get(self.position..).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        for Patch { start, bytes } in &self.patches {
            for (place, &byte) in (*start..).zip(bytes) {
                let within = place.checked_sub(self.position).filter(|&within| within < length);
                if let Some(within) = within {
                    into[within] = byte;
                }
            }
        }
        self.position += length;
        Ok(length)
    }
}

impl Seek for Patched<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let from = |start: usize, by: i64| (start as u64).checked_add_signed(by);
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => from(self.file.len(), by),
            SeekFrom::Current(by) => from(self.position, by),
        };
        let position = position.ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        self.position = usize::try_from(position).map_err(|_| ErrorKind::InvalidInput)?;
        Ok(position)
    }
}
