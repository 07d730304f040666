//! Temporary Redis servers: one for the test run, with a database for each test, and a separate one for a test that
//! freezes it.
//!
//! As with PostgreSQL, the shell that started the server reads a pipe from this process. When the pipe closes, it kills
//! the server and removes its folder, however this process ended.

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

/// Databases in one server, and so tests that can use it.
const DATABASES: u32 = 1024;

/// Starts the program `$2` in the folder `$1`, on port `$4` unless that is 0. Prints `ready` and the process ID, waits
/// for the end of its input, and cleans up. It kills the server, because a frozen one cannot be asked to stop.
const SERVER_SCRIPT: &str = r#"
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
    /// Holds the pipe that stops the server when it closes.
    _shell: Child,
}

impl RedisServer {
    /// The server that all tests share, or `None` if Redis is not installed.
    pub(crate) fn of_this_run() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<RedisServer>> = OnceLock::new();
        SERVER.get_or_init(Self::start).as_ref()
    }

    /// A separate server, or `None` if Redis is not installed.
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
        // The shell removes the folder.
        let folder = folder.expect("there is a temporary folder").keep();
        let mut shell = Command::new("sh")
            .args(["-c", SERVER_SCRIPT, "shell"])
            .args([&folder, program])
            .args([DATABASES.to_string(), port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A separate process group: Ctrl-C then ends the tests first, and the shell after them.
            .process_group(0)
            .spawn()
            .expect("sh can be started");
        let mut said = String::new();
        let output = shell.stdout.take().expect("the output is piped");
        BufReader::new(output).read_line(&mut said).expect("the shell can be read");
        let Some(process) = said.trim_end().strip_prefix("ready ") else {
            panic!("the private Redis did not start: {said}");
        };
        Self {
            socket: folder.join("redis.sock"),
            process: process.to_owned(),
            next_database: AtomicU32::new(0),
            _shell: shell,
        }
    }

    /// The address of its first database, as a setting.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}?db=0", self.socket.display())
    }

    /// An empty database.
    pub(crate) fn database(&self) -> RedisDatabase {
        let number = self.next_database.fetch_add(1, Ordering::Relaxed);
        assert!(number < DATABASES, "more tests than databases");
        RedisDatabase { socket: self.socket.clone(), number }
    }

    /// Freezes the process: connections stay open without answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Resumes it.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Kills it: connections break, and new ones fail.
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
    /// An empty one of the shared server, or `None` if Redis is not installed.
    pub(crate) fn new() -> Option<Self> {
        Some(RedisServer::of_this_run()?.database())
    }

    /// Its address, as a setting.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}?db={}", self.socket.display(), self.number)
    }

    /// The settings that use it, with a timeout for slow machines.
    pub(crate) fn settings(&self, on_failure: OnFailure) -> RedisSettings {
        RedisSettings { url: self.url().into(), url_file: None, timeout_ms: 10_000, on_failure }
    }

    /// The server's reply to a command, in its protocol.
    pub(crate) fn command(&self, command: &str) -> String {
        let reply = String::from_utf8(self.reply(command)).expect("the reply is text");
        reply.trim_end().to_owned()
    }

    /// The same for a reply that is not text.
    pub(crate) fn reply(&self, command: &str) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).expect("the server listens");
        let commands = format!("SELECT {}\r\n{command}\r\nQUIT\r\n", self.number);
        stream.write_all(commands.as_bytes()).expect("the server reads");
        let mut replies = Vec::new();
        stream.read_to_end(&mut replies).expect("the server writes");
        let reply = replies.strip_prefix(b"+OK\r\n").and_then(|rest| rest.strip_suffix(b"+OK\r\n"));
        let told = || panic!("{command}: {}", String::from_utf8_lossy(&replies));
        reply.unwrap_or_else(told).to_owned()
    }

    /// The names of all values.
    pub(crate) fn names(&self) -> Vec<String> {
        let listed = self.command("KEYS *");
        let names = listed.lines().filter(|line| !line.starts_with(['*', '$']));
        names.map(str::to_owned).collect()
    }
}

/// The server's program: Redis, or Valkey, which some systems have in its place.
fn redis_program() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = ["redis-server", "valkey-server"];
    let mut places = env::split_paths(&path)
        .flat_map(|folder| programs.map(|program| folder.join(program)))
        .filter(|place| place.is_file());
    places.next()
}
