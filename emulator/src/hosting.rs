//! Hosted files: those that a test puts at an address and those that a client uploads.
//!
//! Nothing is ever fetched, so only these addresses resolve. The oldest files are removed for new ones, so that neither
//! a test nor a client can fill the memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// The most hosted files.
const MOST_FILES: usize = 1_000;

/// The most bytes of all hosted files.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Files by their address.
#[derive(Debug, Default)]
pub(crate) struct Hosting {
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    /// Oldest first.
    queue: VecDeque<(String, Bytes)>,
    bytes: usize,
}

impl Hosting {
    /// Puts a file at an address, replacing an earlier one.
    pub(crate) fn put(&self, address: String, file: Bytes) {
        let mut files = self.files();
        files.remove(&address);
        files.bytes += file.len();
        files.queue.push_back((address, file));
        while files.queue.len() > MOST_FILES || files.bytes > MOST_BYTES {
            let Some((_, oldest)) = files.queue.pop_front() else { return };
            files.bytes -= oldest.len();
        }
    }

    /// The file at exactly this address.
    pub(crate) fn find(&self, address: &str) -> Option<Bytes> {
        let files = self.files();
        files.queue.iter().find(|(known, _)| known == address).map(|(_, file)| file.clone())
    }

    /// Removes all files.
    pub(crate) fn clear(&self) {
        *self.files() = Files::default();
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn remove(&mut self, address: &str) {
        if let Some(at) = self.queue.iter().position(|(known, _)| known == address)
            && let Some((_, file)) = self.queue.remove(at)
        {
            self.bytes -= file.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_the_place_of_one_at_its_address() {
        let hosting = Hosting::default();
        hosting.put("oss://a".to_owned(), "old".into());
        hosting.put("oss://a".to_owned(), "new".into());
        assert_eq!(hosting.find("oss://a").unwrap(), "new");
        let files = hosting.files();
        assert_eq!((files.queue.len(), files.bytes), (1, 3));
    }

    #[test]
    fn the_oldest_files_make_room() {
        let hosting = Hosting::default();
        for number in 0..=MOST_FILES {
            hosting.put(number.to_string(), "x".into());
        }
        assert_eq!(hosting.find("0"), None);
        hosting.put("large".to_owned(), vec![0; MOST_BYTES].into());
        assert_eq!(hosting.find("1000"), None);
        assert!(hosting.find("large").is_some());
    }
}
