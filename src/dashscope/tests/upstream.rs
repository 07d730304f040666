//! A scripted upstream: it reads requests from a real socket, keeps them, and
//! answers each with the next step of its script.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// How to handle one request.
#[derive(Debug, Clone)]
pub(super) struct Step {
    write: String,
    after: After,
    reads_body: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Continue,
    Close,
    Hang,
    Drip,
    /// Reads the rest of the body on demand, and reports its length.
    ReadOn,
}

impl Step {
    pub(super) fn write(text: &str) -> Self {
        Self { write: text.to_owned(), after: After::Continue, reads_body: true }
    }

    pub(super) fn close() -> Self {
        Self::write("").then_close()
    }

    pub(super) fn hang() -> Self {
        Self::write("").then_hang()
    }

    pub(super) fn close_before_the_body() -> Self {
        Self { reads_body: false, ..Self::close() }
    }

    /// The same as soon as the head has arrived; the body is not read.
    pub(super) fn before_the_body(self) -> Self {
        Self { reads_body: false, after: After::ReadOn, ..self }
    }

    /// The same with another header line.
    pub(super) fn with_header(self, line: &str) -> Self {
        let write = self.write.replacen("\r\n", &format!("\r\n{line}\r\n"), 1);
        Self { write, ..self }
    }

    pub(super) fn then_close(self) -> Self {
        Self { after: After::Close, ..self }
    }

    /// A byte now and then, so that no silence is long and the body never ends.
    pub(super) fn then_drip(self) -> Self {
        Self { after: After::Drip, ..self }
    }

    pub(super) fn then_hang(self) -> Self {
        Self { after: After::Hang, ..self }
    }
}

/// A response with this body.
pub(super) fn json(status: u16, body: &str) -> Step {
    let length = body.len();
    Step::write(&format!(
        "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         x-request-id: r-{status}\r\n\r\n{body}"
    ))
}

/// A valid answer: 728 image, 24 text and 432 output tokens.
pub(super) fn answer() -> Step {
    json(
        200,
        r#"{"choices":[{"finish_reason":"stop","message":{"content":"text"}}],"usage":{"prompt_tokens":752,
        "completion_tokens":432,"prompt_tokens_details":{"image_tokens":728}}}"#,
    )
}

/// A received request; the head in lower case.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

#[derive(Debug, Default)]
struct Script {
    steps: Mutex<VecDeque<Step>>,
    requests: Mutex<Vec<Received>>,
    may_read_on: Notify,
    has_read_on: Notify,
    rest: AtomicUsize,
}

pub(super) struct Upstream {
    address: String,
    script: Arc<Script>,
    tasks: JoinSet<()>,
}

impl Upstream {
    pub(super) async fn start(steps: impl IntoIterator<Item = Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let steps = Mutex::new(steps.into_iter().collect());
        let script = Arc::new(Script { steps, ..Script::default() });
        let mut tasks = JoinSet::new();
        let for_task = Arc::clone(&script);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(serve(connection, Arc::clone(&for_task)));
            }
        });
        Self { address, script, tasks }
    }

    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    /// Removes the remaining failures.
    pub(super) fn forget_failures(&self) {
        self.script.steps.lock().unwrap().retain(|step| step.write.starts_with("HTTP/1.1 200"));
    }

    pub(super) fn requests(&self) -> Vec<Received> {
        self.script.requests.lock().unwrap().clone()
    }

    /// Reads a body that was not read before, and returns its length.
    pub(super) async fn rest_of_the_body(&self) -> usize {
        self.script.may_read_on.notify_one();
        self.script.has_read_on.notified().await;
        self.script.rest.load(Ordering::Acquire)
    }

    pub(super) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve(mut connection: TcpStream, script: Arc<Script>) {
    while let Some((head, begun)) = read_head(&mut connection).await {
        let step = script.steps.lock().unwrap().pop_front().expect("a step for the request");
        let body =
            if step.reads_body { read_body(&mut connection, &head, begun).await } else { begun };
        script.requests.lock().unwrap().push(Received { head, body });
        connection.write_all(step.write.as_bytes()).await.unwrap();
        match step.after {
            After::Continue => {}
            After::Close => return,
            After::Hang => std::future::pending().await,
            After::Drip => drip(&mut connection).await,
            After::ReadOn => {
                script.may_read_on.notified().await;
                let mut rest = Vec::new();
                // A reset also ends a connection.
                let _ = connection.read_to_end(&mut rest).await;
                script.rest.store(rest.len(), Ordering::Release);
                script.has_read_on.notify_one();
                return;
            }
        }
    }
}

async fn drip(connection: &mut TcpStream) {
    let mut often = tokio::time::interval(Duration::from_millis(20));
    while connection.write_all(b" ").await.is_ok() {
        often.tick().await;
    }
}

/// The head in lower case, and the part of the body that came with it; `None` if the client hung up.
async fn read_head(connection: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).unwrap().to_ascii_lowercase(), body));
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

async fn read_body(connection: &mut TcpStream, head: &str, begun: Vec<u8>) -> Vec<u8> {
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().unwrap());
    let mut body = begun;
    while body.len() < length {
        assert_ne!(connection.read_buf(&mut body).await.unwrap(), 0, "a body that was cut");
    }
    body
}
