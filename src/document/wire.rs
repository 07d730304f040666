//! The messages between the service and a worker, over the worker's standard input and output.
//!
//! A message has a head in JSON and a payload of raw bytes: the file to read, or a drawn page. The lengths of both come
//! first, as two 32-bit numbers. Each side refuses a length above its bound before it allocates: a worker that a
//! document has taken over must not be able to exhaust the service's memory.

use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::DocumentError;
use super::page::{Draw, Kind, PagePlan, PicturePage};
use crate::image::Size;
use crate::image::format::Format;
use crate::legibility::Legibility;

/// What a picture may take as an object of a PDF, beyond its file: its dictionary with a palette.
pub(super) const PICTURE_HEAD: u64 = 16 * 1024;

/// The longest head of a request, in bytes.
const LONGEST_REQUEST: u32 = 4 * 1024;

/// The longest head of a reply, in bytes. The text of the densest pages of newspapers takes a tenth.
pub(super) const LONGEST_REPLY: u32 = 4 * 1024 * 1024;

/// A request of the service to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Open the file in the payload, in place of any other.
    Open {
        /// How it is read.
        kind: Kind,
    },
    /// Tell what is known of a page before it is drawn.
    Plan {
        /// Counted from 1.
        page: u32,
        /// Whether its text is wanted.
        text: bool,
    },
    /// Find out how large the text of a page is, and where anything can be seen.
    Measure {
        /// Counted from 1.
        page: u32,
        /// The size of the page in whose pixels the answer is given.
        size: Size,
    },
    /// Draw a page.
    Draw {
        /// Counted from 1.
        page: u32,
        /// How.
        draw: Draw,
    },
    /// Make sure that the PDF can become searchable.
    Prepare,
    /// Take a picture into a PDF of pictures.
    Enclose {
        /// Counted from 1.
        page: u32,
        /// How many pictures come before it.
        index: u32,
    },
    /// Write the text in the payload, a [`TextJob`](super::searchable::TextJob) in JSON, over the pages.
    AddText,
    /// Forget the file.
    Close,
}

/// What a worker answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The cage is closed: requests may come.
    Ready {
        /// Why system calls are not filtered, if they are not.
        unfiltered: Option<String>,
    },
    /// The file is open.
    Opened {
        /// Its number of pages.
        pages: u32,
    },
    /// See [`Request::Plan`].
    Planned(PagePlan),
    /// See [`Request::Measure`].
    Measured(Legibility),
    /// The page is in the payload.
    Drawn {
        /// Its format.
        format: Format,
        /// Its size.
        size: Size,
    },
    /// The PDF can become searchable.
    Prepared {
        /// Whether it had to be written anew: the new file is in the payload.
        is_anew: bool,
    },
    /// The picture is in the payload, as an object of a PDF.
    Enclosed(PicturePage),
    /// The rest of the searchable PDF is in the payload.
    TextAdded,
    /// The file is forgotten.
    Closed {
        /// Whether memory remains that the file took, so that the process should not be used again.
        has_grown: bool,
    },
    /// The file or the page cannot be read.
    Failed(DocumentError),
}

/// The lengths before a message.
struct Lengths {
    head: usize,
    payload: usize,
}

impl Lengths {
    /// The lengths in `bytes`, if they are within their bounds.
    fn read(bytes: [u8; 8], head: u32, payload: u64) -> io::Result<Self> {
        // The first half is the low one of a little-endian number.
        let both = u64::from_le_bytes(bytes);
        let (own_head, own_payload) = (both & u64::from(u32::MAX), both >> 32);
        if own_head > u64::from(head) || own_payload > payload {
            return Err(malformed("a message is longer than it may be"));
        }
        let length = |length| usize::try_from(length).map_err(io::Error::other);
        Ok(Self { head: length(own_head)?, payload: length(own_payload)? })
    }
}

/// The lengths and the head of a message with a payload of so many bytes.
fn start(head: &impl Serialize, payload: usize) -> io::Result<Vec<u8>> {
    let head = serde_json::to_vec(head).map_err(io::Error::other)?;
    let too_long = |_| io::Error::other("the message is too long");
    let lengths = [head.len(), payload].map(|length| u32::try_from(length).map_err(too_long));
    let [head_length, payload_length] = lengths;
    let lengths = [head_length?.to_le_bytes(), payload_length?.to_le_bytes()].concat();
    Ok([lengths, head].concat())
}

fn parse<T: DeserializeOwned>(head: &[u8]) -> io::Result<T> {
    serde_json::from_slice(head).map_err(|_| malformed("a message is not understood"))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The length of a reply's head, in bytes.
pub(super) fn head_length(reply: &Reply) -> usize {
    serde_json::to_vec(reply).map_or(usize::MAX, |head| head.len())
}

/// Reads a request in the worker; `None` if the service has closed the pipe.
///
/// # Errors
///
/// If the pipe breaks within a request, or it is none.
pub(super) fn read_request(from: &mut impl Read) -> io::Result<Option<(Request, Vec<u8>)>> {
    let mut lengths = [0; 8];
    if from.read(&mut lengths[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut lengths[1..])?;
    let lengths = Lengths::read(lengths, LONGEST_REQUEST, u64::from(u32::MAX))?;
    let mut head = vec![0; lengths.head];
    from.read_exact(&mut head)?;
    // The cage bounds what this allocates.
    let mut payload = vec![0; lengths.payload];
    from.read_exact(&mut payload)?;
    Ok(Some((parse(&head)?, payload)))
}

/// Writes a reply in the worker.
///
/// # Errors
///
/// If the pipe breaks.
pub(super) fn write_reply(to: &mut impl Write, reply: &Reply, payload: &[u8]) -> io::Result<()> {
    to.write_all(&start(reply, payload.len())?)?;
    to.write_all(payload)?;
    to.flush()
}

/// Writes a request in the service.
///
/// # Errors
///
/// If the pipe breaks.
pub(super) async fn send_request(
    to: &mut (impl AsyncWrite + Unpin),
    request: &Request,
    payload: &[u8],
) -> io::Result<()> {
    to.write_all(&start(request, payload.len())?).await?;
    to.write_all(payload).await?;
    to.flush().await
}

/// Reads a reply in the service, with a payload of at most `most` bytes.
///
/// # Errors
///
/// If the pipe breaks, the reply is longer than it may be, or it is none.
pub(super) async fn receive_reply(
    from: &mut (impl AsyncRead + Unpin),
    most: u64,
) -> io::Result<(Reply, Bytes)> {
    let mut lengths = [0; 8];
    from.read_exact(&mut lengths).await?;
    let lengths = Lengths::read(lengths, LONGEST_REPLY, most)?;
    let mut head = vec![0; lengths.head];
    from.read_exact(&mut head).await?;
    let mut payload = vec![0; lengths.payload];
    from.read_exact(&mut payload).await?;
    Ok((parse(&head)?, payload.into()))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    const OPENED: Reply = Reply::Opened { pages: 3 };

    fn message(reply: &Reply, payload: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        write_reply(&mut message, reply, payload).unwrap();
        message
    }

    /// What the service makes of `bytes`, with a payload of at most 10 bytes.
    fn received(mut bytes: &[u8]) -> io::Result<(Reply, Bytes)> {
        receive_reply(&mut bytes, 10).now_or_never().unwrap()
    }

    #[test]
    fn a_reply_arrives_with_its_payload() {
        let (reply, payload) = received(&message(&OPENED, b"0123456789")).unwrap();
        assert_eq!((reply, &payload[..]), (OPENED, &b"0123456789"[..]));
    }

    #[test]
    fn a_request_arrives_with_its_payload_and_a_closed_pipe_is_none() {
        let request = Request::Open { kind: Kind::Pdf };
        let mut message = Vec::new();
        send_request(&mut message, &request, b"%PDF").now_or_never().unwrap().unwrap();
        let mut pipe = &message[..];
        assert_eq!(read_request(&mut pipe).unwrap(), Some((request, b"%PDF".to_vec())));
        assert_eq!(read_request(&mut pipe).unwrap(), None);
        assert!(read_request(&mut &message[..5]).is_err());
    }

    #[test]
    fn a_payload_or_a_head_above_its_bound_is_refused_before_it_comes() {
        assert!(received(&message(&OPENED, &[0; 11])).is_err());
        let head = [(LONGEST_REPLY + 1).to_le_bytes(), [0; 4]].concat();
        let refused = received(&head).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_head_that_is_no_reply_is_refused() {
        for head in ["", "{}", "\"Opened\"", "{\"Opened\":{\"pages\":-1}}", "null"] {
            let length = u32::try_from(head.len()).unwrap();
            let bytes = [&length.to_le_bytes()[..], &[0; 4], head.as_bytes()].concat();
            assert_eq!(received(&bytes).unwrap_err().kind(), io::ErrorKind::InvalidData, "{head}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_worker_make_the_service_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = received(&bytes);
        }
    }
}
