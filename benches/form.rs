//! The cost of the worst uploads: CPU time, and memory beyond the amount that the memory account counts.
//!
//! Each upload is sent over TCP to a service in a process of its own, three times. The run fails if one takes more than
//! [`MOST_CPU`] or [`MOST_BEYOND`].
//!
//! ```text
//! bench/form                 # every upload
//! bench/form "one byte"      # cases with this in their name
//! ```

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::print_stdout, reason = "the figures are the result")]
#![expect(clippy::disallowed_methods, reason = "what is measured is the machine's own time")]

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ocr_gateway::auth::key::{ApiKey, KeyRecord};
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::capacity::account::ByteAccount;
use ocr_gateway::clock::SystemClock;
use ocr_gateway::gateway::Gateway;
use ocr_gateway::random::SystemRandom;
use ocr_gateway::server::{self, BoundAddresses};
use ocr_gateway::settings::Settings;
use ocr_gateway::store::{self, Store};

/// The allocator of the gateway's binary.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The most CPU time that one upload may take of the service's threads.
const MOST_CPU: Duration = Duration::from_millis(50);

/// The maximum memory that one upload may take beyond the amount counted for it, in bytes.
const MOST_BEYOND: i64 = 4 << 20;

/// How often each upload is measured.
const RUNS: usize = 3;

/// The longest accepted body, by the default of `server.max_body_bytes`.
const LONGEST: usize = 20 << 20;

/// The name of the service's threads.
const THREADS: &str = "gateway";

const FORM: &str = "multipart/form-data; boundary=BOUNDARY";
const FILE: &str = "--BOUNDARY\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n";
const DETAIL: &str =
    "--BOUNDARY\r\nContent-Disposition: form-data; name=\"detail\"\r\n\r\ntext\r\n";
const END: &str = "\r\n--BOUNDARY--\r\n";

/// One upload: `begin`, repetitions of `unit` up to `length` bytes, and `end`.
#[derive(Clone)]
struct Upload {
    name: &'static str,
    path: &'static str,
    content_type: String,
    begin: Vec<u8>,
    unit: Vec<u8>,
    length: usize,
    end: Vec<u8>,
    /// Bytes of each chunk; `None` if the length is declared.
    chunk: Option<usize>,
}

impl Upload {
    /// A form of the longest length that can be declared.
    fn form(name: &'static str, begin: &str, unit: &[u8], end: &str) -> Self {
        Self {
            name,
            path: "/estimate",
            content_type: FORM.to_owned(),
            begin: begin.into(),
            unit: unit.to_vec(),
            length: LONGEST - end.len(),
            end: end.into(),
            chunk: None,
        }
    }

    fn of_type(self, content_type: &str) -> Self {
        Self { content_type: content_type.to_owned(), ..self }
    }

    fn to(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    fn long(self, length: usize) -> Self {
        Self { length, ..self }
    }

    fn in_chunks(self, chunk: usize) -> Self {
        Self { chunk: Some(chunk), ..self }
    }

    fn body(&self) -> Vec<u8> {
        let mut body = self.begin.clone();
        let units = self.unit.iter().cycle().take(self.length.saturating_sub(body.len()));
        body.extend(units);
        body.extend_from_slice(&self.end);
        body
    }
}

/// The worst known uploads.
#[expect(clippy::too_many_lines, reason = "it is a list")]
fn uploads() -> Vec<Upload> {
    let (one, large) = (1, 64 << 10);
    let no_boundary = Upload::form("", "", b"x", "");
    let file = |name, unit: &[u8]| Upload::form(name, FILE, unit, END);
    let long_boundary = "b".repeat(50_000);
    let option = |name: &str, length: usize| {
        let head = format!("--BOUNDARY\r\nContent-Disposition: form-data; name=\"{name}\"");
        format!("{head}\r\n\r\n{}\r\n", "0,".repeat(length / 2))
    };
    let options = ["schema", "metadata", "prompt", "pages", "model", "task"];
    let options: String = options.map(|name| option(name, 64 << 10)).concat();
    let named = |name, upload: Upload| Upload { name, ..upload };
    let file_unit = b"\xff\xd8\xff\xe0 a picture, for all that the form knows\r\n";
    vec![
        named(
            "no boundary, one byte a chunk, 3 MB sent",
            no_boundary.clone().long(500_000).in_chunks(one),
        ),
        named(
            "no boundary, one byte a chunk, 6 MB sent",
            no_boundary.clone().long(1_000_000).in_chunks(one),
        ),
        named("no boundary, one byte a chunk, 20 MiB", no_boundary.clone().in_chunks(one)),
        named("no boundary, declared", no_boundary.clone()),
        Upload::form("head without end, 14 MB of lines", "--BOUNDARY\r\n", b"X-A: b\r\n", "")
            .long(14 << 20),
        Upload::form("head without end, one byte a chunk", "--BOUNDARY\r\n", b"X-A: b\r\n", "")
            .in_chunks(one),
        Upload::form("padding without end behind a boundary", "--BOUNDARY", b" ", ""),
        Upload::form("preamble of almost boundaries", "", b"\r\n--BOUNDAR", ""),
        Upload::form("epilogue without end", &format!("{DETAIL}--BOUNDARY--\r\n"), b"x", ""),
        Upload::form(
            "epilogue without end, one byte a chunk",
            &format!("{DETAIL}--BOUNDARY--\r\n"),
            b"x",
            "",
        )
        .in_chunks(one),
        file("file, declared", file_unit),
        file("file, one byte a chunk", file_unit).in_chunks(one),
        file("file, 16 bytes a chunk", file_unit).in_chunks(16),
        file("file, 200 bytes a chunk", file_unit).in_chunks(200),
        file("file, 512 bytes a chunk", file_unit).in_chunks(512),
        file("file, 850 bytes a chunk", file_unit).in_chunks(850),
        file("file, 1 KiB a chunk", file_unit).in_chunks(1024),
        file("file, 64 KiB a chunk", file_unit).in_chunks(large),
        file("file of almost boundaries", b"\r\n--BOUNDAR"),
        file("file of almost boundaries, 7 bytes a chunk", b"\r\n--BOUNDAR").in_chunks(7),
        file("file of carriage returns", b"\r"),
        file("file of carriage returns, one byte a chunk", b"\r").in_chunks(one),
        Upload {
            begin: FILE.replace("BOUNDARY", &"-".repeat(70)).into(),
            ..file(
                "file of dashes, boundary of 70 dashes",
                b"\r\n---------------------------------------------------------------------",
            )
        }
        .of_type(&FORM.replace("BOUNDARY", &"-".repeat(70))),
        Upload {
            begin: FILE.replace("BOUNDARY", &long_boundary).into(),
            ..file(
                "boundary of 50,000 letters, almost repeated",
                format!("\r\n--{}", &long_boundary[1..]).as_bytes(),
            )
        }
        .of_type(&FORM.replace("BOUNDARY", &long_boundary))
        .in_chunks(512),
        Upload::form("one option a quarter of a million times", "", DETAIL.as_bytes(), END),
        Upload::form("the same, one byte a chunk", "", DETAIL.as_bytes(), END).in_chunks(one),
        Upload::form(
            "parts of 30 header lines",
            "",
            DETAIL.replacen("\r\n", &format!("\r\n{}", "X-A: b\r\n".repeat(30)), 1).as_bytes(),
            END,
        ),
        Upload::form("options of 64 KiB", &format!("{options}{FILE}"), file_unit, END),
        Upload::form(
            "options of 64 KiB, one byte a chunk",
            &format!("{options}{FILE}"),
            file_unit,
            END,
        )
        .in_chunks(one),
        named("file as the body, one byte a chunk", no_boundary.clone().in_chunks(one))
            .of_type("image/jpeg"),
        named("file as the body, 512 bytes a chunk", no_boundary.clone().in_chunks(512))
            .of_type("image/jpeg"),
        Upload::form("JSON without end, one byte a chunk", r#"{"document":{"data":""#, b"A", "")
            .of_type("application/json")
            .in_chunks(one),
        named("file as the body, 64 KiB a chunk", no_boundary.clone().in_chunks(large))
            .of_type("image/jpeg"),
        Upload::form(
            "JSON, 64 KiB a chunk",
            r#"{"document":{"type":"base64","data":""#,
            b"A",
            r#""}}"#,
        )
        .of_type("application/json")
        .in_chunks(large),
        Upload::form("drop-in, 64 KiB a chunk", r#"{"model":""#, b"A", r#""}"#)
            .of_type("application/json")
            .to("/compatible-mode/v1/chat/completions")
            .in_chunks(large),
        Upload::form("JSON of brackets", r#"{"document":"#, b"[", "").of_type("application/json"),
        Upload::form("drop-in, one byte a chunk", r#"{"model":""#, b"A", r#""}"#)
            .of_type("application/json")
            .to("/compatible-mode/v1/chat/completions")
            .in_chunks(one),
    ]
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let first = arguments.next().unwrap_or_default();
    if first == "--one" {
        let name = arguments.next().unwrap();
        measure(&uploads().into_iter().find(|upload| upload.name == name).unwrap());
        return ExitCode::SUCCESS;
    }
    println!("{:52} {:>7} {:>9} {:>10} {:>8}", "upload", "status", "CPU", "beyond", "took");
    let mut failed = false;
    for upload in uploads().iter().filter(|upload| upload.name.contains(&first)) {
        let [status, cpu, beyond, took] = least(upload.name);
        let within = cpu <= i64::try_from(MOST_CPU.as_micros()).unwrap() && beyond <= MOST_BEYOND;
        failed |= !within;
        println!(
            "{:52} {status:>7} {:>6}.{} ms {:>7} KB {took:>5} ms{}",
            upload.name,
            cpu / 1000,
            cpu / 100 % 10,
            beyond >> 10,
            if within { "" } else { "  TOO MUCH" }
        );
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Status, CPU in microseconds, uncounted bytes and milliseconds of an upload: the least CPU and the most memory of a
/// few runs. Other load on the machine only adds CPU time, through cold caches.
fn least(name: &str) -> [i64; 4] {
    (0..RUNS)
        .map(|_| {
            // The heap of one run would be free memory of the next.
            let mut one = Command::new(std::env::current_exe().unwrap());
            let told = one.args(["--one", name]).output().unwrap();
            let told = String::from_utf8(told.stdout).unwrap();
            let figures: Vec<_> =
                told.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
            <[i64; 4]>::try_from(figures).unwrap()
        })
        .reduce(|[status, cpu, beyond, took], other| {
            [status, cpu.min(other[1]), beyond.max(other[2]), took.min(other[3])]
        })
        .unwrap()
}

/// Sends one upload to a separate service, and prints its cost.
fn measure(upload: &Upload) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).thread_name(THREADS).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/form.db", folder.path().display());
    let (address, key, memory) = runtime.block_on(start(&url));
    let small = Upload::form("", &format!("{DETAIL}{FILE}"), b"no picture", END).long(2_000);
    for _ in 0..3 {
        send(&small, address, &key);
    }
    let body = upload.body();
    let wire = wire_of(upload, &body, &key);
    drop(body);
    std::thread::sleep(Duration::from_millis(100));
    let (before, resident) = (cpu_time(), resident());
    let (beyond, over) = (AtomicI64::new(0), AtomicBool::new(false));
    let (status, took) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let held = i64::try_from(memory.held()).unwrap();
                beyond.fetch_max(self::resident() - resident - held, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let (status, took) = exchange(&wire, address);
        over.store(true, Ordering::Relaxed);
        (status, took)
    });
    std::thread::sleep(Duration::from_millis(100));
    let cpu = cpu_time().saturating_sub(before);
    let beyond = beyond.into_inner();
    println!("{status} {} {beyond} {}", cpu.as_micros(), took.as_millis());
}

/// Starts the service. Returns its address, a key, and its memory account.
async fn start(url: &str) -> (SocketAddr, String, Arc<ByteAccount>) {
    let environment = [
        ("OCR_GATEWAY__UPSTREAM__API_KEY", "sk-none"),
        ("OCR_GATEWAY__UPSTREAM__BASE_URL", "http://127.0.0.1:9"),
        ("OCR_GATEWAY__SERVER__LISTEN", "127.0.0.1:0"),
        ("OCR_GATEWAY__SERVER__METRICS_LISTEN", "127.0.0.1:0"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = Settings::load_with(None, HashMap::from(environment)).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = store::connect(url, store::StoreOptions::default()).await.unwrap();
    store.migrate().await.unwrap();
    let key = create_key(&store).await;
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let gateway = Gateway::build(&settings, store, clock, random).await.unwrap();
    let listeners = BoundAddresses::bind(&settings.server).await.unwrap().listen().unwrap();
    let address = listeners.public.local_addr().unwrap();
    let memory = Arc::clone(&gateway.memory);
    tokio::spawn(async move {
        server::run(gateway, listeners, &settings.server, std::future::pending()).await
    });
    (address, key, memory)
}

async fn create_key(store: &Store) -> String {
    let tenant = Tenant::new("bench".parse().unwrap());
    store.tenants().create_tenant(&tenant).await.unwrap();
    let (key, hash) = ApiKey::create(&SystemRandom);
    let record = KeyRecord {
        id: key.id().clone(),
        tenant: tenant.name,
        hash,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
        revoked_at: None,
        label: None,
    };
    store.tenants().create_key(&record).await.unwrap();
    key.expose().to_owned()
}

/// The bytes of a request.
fn wire_of(upload: &Upload, body: &[u8], key: &str) -> Vec<u8> {
    let (path, content_type) = (upload.path, &upload.content_type);
    let framing = upload.chunk.map_or_else(
        || format!("Content-Length: {}", body.len()),
        |_| "Transfer-Encoding: chunked".to_owned(),
    );
    let mut wire = format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nX-API-Key: {key}\r\n\
         Content-Type: {content_type}\r\n{framing}\r\n\r\n"
    )
    .into_bytes();
    let Some(chunk) = upload.chunk else {
        wire.extend_from_slice(body);
        return wire;
    };
    for piece in body.chunks(chunk) {
        write!(wire, "{:x}\r\n", piece.len()).unwrap();
        wire.extend_from_slice(piece);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

fn send(upload: &Upload, address: SocketAddr, key: &str) {
    exchange(&wire_of(upload, &upload.body(), key), address);
}

/// Sends a request, and returns the status and the duration. A hostile client continues to send after the
/// answer has arrived, as long as the service allows it.
fn exchange(wire: &[u8], address: SocketAddr) -> (u16, Duration) {
    let (began, mut reading) = (Instant::now(), TcpStream::connect(address).unwrap());
    let mut writing = reading.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || writing.write_all(wire));
        let mut start = [0; "HTTP/1.1 200".len()];
        reading.read_exact(&mut start).unwrap();
        let took = began.elapsed();
        // The service closes its side after the answer.
        let _ = reading.read_to_end(&mut Vec::new());
        (std::str::from_utf8(&start[9..]).unwrap().parse().unwrap(), took)
    })
}

/// The CPU time of the service's threads, the first figure of their `schedstat` in nanoseconds
/// (Documentation/scheduler/sched-stats in Linux).
fn cpu_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let ours = threads.filter(|thread| {
        fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.starts_with(THREADS))
    });
    let times = ours.filter_map(|thread| {
        let told = fs::read_to_string(thread.join("schedstat")).ok()?;
        told.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

/// Memory of this process that is not backed by files, in bytes (proc(5), `RssAnon`).
fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    anonymous.trim().trim_end_matches("kB").trim().parse::<i64>().unwrap() << 10
}
