//! A searchable PDF in the making.
//!
//! The draft is begun before a page is read, so that a file that cannot become a searchable PDF is refused before it
//! costs anything. A PDF stays as it is, and its text is appended at the end. The pictures of other files are taken
//! into a new PDF at once, because decoding them may fail. The bytes of the draft count in `in_flight_bytes` before
//! they are received, within the room for a drawn page that comes with a worker. A worker does not wait for memory that
//! another one holds for a draft: if there is none left, the request is refused.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Document, Lease, PAGE_BYTES, Step};
use crate::capacity::account::HeldBytes;
use crate::document::error::DocumentError;
use crate::document::page::{Kind, PageLines};
use crate::document::searchable::TextJob;
use crate::document::searchable::album::{AlbumPage, HEADER};
use crate::document::wire::{PICTURE_HEAD, Reply, Request};
use crate::quote::limits::LARGEST_FILE;

/// A searchable PDF in the making.
#[derive(Debug)]
pub struct Draft {
    document: Arc<Document>,
    /// The pictures of a document that is no PDF.
    album: Option<Album>,
}

/// The pages of a new PDF, and their pictures.
#[derive(Debug, Default)]
struct Album {
    pages: Vec<AlbumPage>,
    pictures: Vec<Bytes>,
    memory: Vec<Arc<HeldBytes>>,
}

/// A searchable PDF: pieces that follow each other.
#[derive(Debug, Clone)]
pub struct SearchableFile {
    /// Its bytes.
    pub pieces: Vec<Bytes>,
    /// The memory that counts for them.
    pub memory: Vec<Arc<HeldBytes>>,
}

impl Draft {
    /// Begins with the pages of a document that are to be searchable. The other pages of a PDF stay as they are; those
    /// of a TIFF are left out.
    ///
    /// # Errors
    ///
    /// [`DocumentError::NotSearchable`], the errors of a picture that cannot be decoded unless there are others, and
    /// [`DocumentError::Busy`] if there was no worker or memory for it until `until`.
    pub async fn begin(
        document: Arc<Document>,
        pages: &[u32],
        until: std::time::Instant,
    ) -> Result<Self, DocumentError> {
        let until = Instant::from_std(until);
        match document.kind {
            Kind::Pdf => prepared(document, until).await,
            Kind::Tiff | Kind::Picture => {
                let album = Some(enclosed(&document, pages, until).await?);
                Ok(Self { document, album })
            }
        }
    }

    /// The document whose pages are to be read. It is another one than at the beginning if its file had to be written
    /// anew.
    pub const fn document(&self) -> &Arc<Document> {
        &self.document
    }

    /// Writes the text. If its worker is lost, another one writes it once more.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if no worker was free until `until`, or if the text takes too much.
    pub async fn finish(
        self,
        lines: Vec<PageLines>,
        until: std::time::Instant,
    ) -> Result<SearchableFile, DocumentError> {
        let Self { document, album } = self;
        let mut file = SearchableFile { pieces: Vec::new(), memory: Vec::new() };
        let pages = if let Some(Album { pages, pictures, memory }) = album {
            file.pieces.push(Bytes::from_static(HEADER));
            file.pieces.extend(pictures);
            file.memory.extend(memory);
            Some(pages)
        } else {
            file.pieces.push(document.file.clone());
            file.memory.extend(document.upload.clone());
            None
        };
        if pages.is_none() && lines.iter().all(|page| page.lines.is_empty()) {
            return Ok(file);
        }
        let job = TextJob { lines, album: pages };
        let job = tokio::task::spawn_blocking(move || serde_json::to_vec(&job));
        let job = job.await.ok().and_then(Result::ok).ok_or(DocumentError::Interrupted)?;
        let until = Instant::from_std(until);
        let (rest, memory) = match added(&document, &job, until).await {
            // The worker was lost or slow. The pages cost money, so another one tries again.
            Err(DocumentError::Interrupted | DocumentError::Busy) if Instant::now() < until => {
                added(&document, &job, until).await?
            }
            other => other?,
        };
        file.memory.push(Arc::new(memory));
        file.pieces.push(rest);
        Ok(file)
    }
}

impl SearchableFile {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Has a worker write the text. Returns what is to be appended to the file, and the memory that counts for it.
async fn added(
    document: &Arc<Document>,
    job: &[u8],
    until: Instant,
) -> Result<(Bytes, HeldBytes), DocumentError> {
    let mut lease = document.lease_despite_losses(until).await?;
    let step = Step { request: Request::AddText, payload: job, most: LARGEST_FILE };
    let Some((Reply::TextAdded, rest)) = lease.ask(Some(step), until).await? else {
        return Err(lease.malformed());
    };
    let memory = lease.memory.split(rest.len() as u64);
    Ok((rest, memory))
}

/// The draft of a PDF. A damaged one is replaced by one that was written anew.
async fn prepared(document: Arc<Document>, until: Instant) -> Result<Draft, DocumentError> {
    let mut lease = document.lease(until).await?;
    let step = Step::of(Request::Prepare, LARGEST_FILE);
    match lease.ask(Some(step), until).await? {
        Some((Reply::Prepared { is_anew: false }, _)) => Ok(Draft { document, album: None }),
        Some((Reply::Prepared { is_anew: true }, file)) => {
            let upload = document.upload.clone();
            if let Some(upload) = &upload {
                // It replaces the upload, whose bytes are held already.
                let more = (file.len() as u64).saturating_sub(upload.bytes());
                upload.take_or_reclaim(more).await.map_err(|_| DocumentError::Busy)?;
            }
            let document = document.workers.open(Kind::Pdf, file, upload);
            Ok(Draft { document, album: None })
        }
        _ => Err(lease.malformed()),
    }
}

/// Takes the pictures of these pages in.
async fn enclosed(
    document: &Arc<Document>,
    pages: &[u32],
    until: Instant,
) -> Result<Album, DocumentError> {
    let most = LARGEST_FILE.max(document.file.len() as u64).saturating_add(PICTURE_HEAD);
    let mut lease = document.lease(until).await?;
    let mut album = Album::default();
    for (index, &number) in (0..).zip(pages) {
        document.check_losses()?;
        lease.make_room_for(most)?;
        let step = Step::of(Request::Enclose { page: number, index }, most);
        let picture = match lease.ask(Some(step), until).await {
            Ok(Some((Reply::Enclosed(page), picture))) => {
                let length = picture.len() as u64;
                album.memory.push(Arc::new(lease.memory.split(length)));
                album.pictures.push(picture);
                Some((page, length))
            }
            Ok(_) => return Err(lease.malformed()),
            // It cannot be read either, and keeps its place in the file.
            Err(error) if error.is_of_page() && pages.len() > 1 => None,
            Err(error) => return Err(error),
        };
        album.pages.push(AlbumPage { number, picture });
    }
    Ok(album)
}

impl Lease {
    /// Makes sure that memory is held for a reply of `most` bytes, beside what the worker may take.
    fn make_room_for(&self, most: u64) -> Result<(), DocumentError> {
        let all =
            self.document.workers.limits.memory.saturating_add(most).saturating_add(PAGE_BYTES);
        let more = all.saturating_sub(self.memory.bytes());
        self.memory.take(more).map_err(|_| DocumentError::Busy)
    }
}
