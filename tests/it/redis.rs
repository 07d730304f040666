//! Throw-away Redis servers: one for the run, of which each test gets a database of its own, and one by
//! itself for a test that freezes it.
//!
//! As with PostgreSQL, a shell that started the server reads a pipe from here, and kills the server and
//! removes its folder when the pipe closes, however this process ended.

#![expect(clippy::expect_used, clippy::panic, reason = "a test whose Redis fails has failed")]
#![expect(clippy::print_stdout, reason = "what was skipped must be seen")]

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ocr_gateway::redis::settings::{OnFailure, RedisSettings};

/// How many tests can have a database of their own in one server.
const DATABASES: u32 = 1024;

/// Starts the program `$2` in the folder `$1`, on the port `$4` if that is not 0, says `ready` and its process, waits for the end of its
/// input, and cleans up. A frozen server can be killed, but not asked to end.
const KEEPER: &str = r#"
set -eu
folder=$1 program=$2 databases=$3 port=$4
"$program" --port "$port" --bind 127.0.0.1 --unixsocket "$folder/redis.sock" --dir "$folder" --databases "$databases" \
    --save '' --appendonly no --logfile "$folder/log" &
server=$!
trap 'kill -KILL "$server"; rm -rf "$folder"' EXIT
until [ -S "$folder/redis.sock" ]; do
    kill -0 "$server"
    sleep 0.02
done
echo "ready $server"
cat >/dev/null
"#;

/// A Redis server.
#[derive(Debug)]
pub(crate) struct RedisServer {
    socket: PathBuf,
    process: String,
    next_database: AtomicU32,
    /// Holds the pipe whose end stops the server.
    _keeper: Child,
}

impl RedisServer {
    /// The server that all tests share, or `None` where Redis is not installed.
    pub(crate) fn of_this_run() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<RedisServer>> = OnceLock::new();
        SERVER.get_or_init(Self::start).as_ref()
    }

    /// A server by itself, or `None` where Redis is not installed.
    pub(crate) fn start() -> Option<Self> {
        const NO_PORT: u16 = 0;
        Self::start_on(NO_PORT)
    }

    /// The same on a port of this machine.
    pub(crate) fn start_on(port: u16) -> Option<Self> {
        if let Some(program) = redis_program() {
            return Some(Self::start_program(&program, port));
        }
        let missing = "neither redis-server nor valkey-server is installed (apt install redis)";
        let is_required = env::var_os("OCR_GATEWAY_REQUIRE_PROGRAMS").is_some_and(|set| set == "1");
        assert!(!is_required, "{missing}");
        println!("skipped with Redis: {missing}");
        None
    }

    fn start_program(program: &PathBuf, port: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("ocr-gateway-redis-").tempdir();
        // The keeper removes it.
        let folder = folder.expect("there is a temporary folder").keep();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .args([&folder, program])
            .args([DATABASES.to_string(), port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of its own: Ctrl-C ends the tests, and the keeper after them.
            .process_group(0)
            .spawn()
            .expect("sh can be started");
        let mut said = String::new();
        let output = keeper.stdout.take().expect("the output is piped");
        BufReader::new(output).read_line(&mut said).expect("the keeper can be read");
        let Some(process) = said.trim_end().strip_prefix("ready ") else {
            panic!("the private Redis did not start: {said}");
        };
        Self {
            socket: folder.join("redis.sock"),
            process: process.to_owned(),
            next_database: AtomicU32::new(0),
            _keeper: keeper,
        }
    }

    /// Where its first database is, as a setting.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}?db=0", self.socket.display())
    }

    /// An empty database.
    pub(crate) fn database(&self) -> RedisDatabase {
        let number = self.next_database.fetch_add(1, Ordering::Relaxed);
        assert!(number < DATABASES, "more tests than databases");
        RedisDatabase { socket: self.socket.clone(), number }
    }

    /// Stops the process where it stands: connections stay open, and nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Ends it: connections break, and none can be made.
    pub(crate) fn end(&self) {
        self.signal("-KILL");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process]).status();
        assert!(sent.expect("kill can be started").success());
    }
}

/// A database of a Redis server.
#[derive(Debug, Clone)]
pub(crate) struct RedisDatabase {
    socket: PathBuf,
    number: u32,
}

impl RedisDatabase {
    /// An empty one of the shared server, or `None` where Redis is not installed.
    pub(crate) fn new() -> Option<Self> {
        Some(RedisServer::of_this_run()?.database())
    }

    /// Where it is, as a setting.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}?db={}", self.socket.display(), self.number)
    }

    /// The settings that use it. Their patience is that of a slow machine.
    pub(crate) fn settings(&self, on_failure: OnFailure) -> RedisSettings {
        RedisSettings { url: self.url().into(), url_file: None, timeout_ms: 10_000, on_failure }
    }

    /// What the server replies to a command, in its protocol.
    pub(crate) fn command(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("the server listens");
        let commands = format!("SELECT {}\r\n{command}\r\nQUIT\r\n", self.number);
        stream.write_all(commands.as_bytes()).expect("the server reads");
        let mut replies = String::new();
        stream.read_to_string(&mut replies).expect("the server writes");
        let reply = replies.strip_prefix("+OK\r\n").and_then(|rest| rest.strip_suffix("+OK\r\n"));
        reply.unwrap_or_else(|| panic!("{command}: {replies}")).trim_end().to_owned()
    }
}

/// The server's program: Redis, or the Valkey that some systems have in its place.
fn redis_program() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = ["redis-server", "valkey-server"];
    let mut places = env::split_paths(&path)
        .flat_map(|folder| programs.map(|program| folder.join(program)))
        .filter(|place| place.is_file());
    places.next()
}
