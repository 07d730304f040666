//! Temporary databases for tests: a SQLite file, and a database in a private PostgreSQL.
//!
//! The first test that needs PostgreSQL starts one server for the whole run of the test binary. The server has its own
//! folder and only a Unix socket in that folder, so ports cannot collide and nobody else can connect. A static value is
//! never dropped, and a test run can be killed. So this process does not stop the server: the shell that started it
//! reads a pipe from this process. When the pipe closes, the shell stops the server and removes the folder, however
//! this process ended.
//!
//! The server sorts by English rules and not by bytes, because that is where an `ORDER BY` of the two engines would
//! differ.

#![expect(clippy::expect_used, clippy::panic, reason = "a test whose database fails has failed")]
#![expect(clippy::print_stdout, reason = "what was skipped must be seen")]

use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ocr_gateway::store::{self, Engine, Store, StoreOptions};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;

/// Starts the server in the folder `$1` with the programs of the folder `$2`, on port `$3` unless that is empty. Prints
/// `ready`, waits for the end of its input, and cleans up. As root it runs as `postgres`, because the server refuses
/// root.
const SERVER_SCRIPT: &str = r#"
set -eu
folder=$1 programs=$2 port=$3
if [ "$(id -u)" = 0 ]; then
    chown postgres "$folder"
    as_owner() { runuser -u postgres -- "$@"; }
else
    as_owner() { "$@"; }
fi
clean_up() {
    as_owner "$programs/pg_ctl" -D "$folder/data" -m immediate stop || true
    rm -rf "$folder"
}
trap 'clean_up >/dev/null 2>&1' EXIT
cd "$folder"
as_owner "$programs/initdb" -D "$folder/data" -A trust -U postgres -E UTF8 --no-sync \
    --locale=C.UTF-8 --locale-provider=icu --icu-locale=en
as_owner "$programs/pg_ctl" -D "$folder/data" -w -s -l "$folder/data/log" -o "-k $folder \
    -c listen_addresses=${port:+127.0.0.1} -c port=${port:-5432} \
    -c fsync=off -c synchronous_commit=off -c full_page_writes=off" start
echo ready
cat >/dev/null
"#;

/// The same for a primary `first` and its standby `second`.
const PAIR_SCRIPT: &str = r#"
set -eu
folder=$1 programs=$2
if [ "$(id -u)" = 0 ]; then
    chown postgres "$folder"
    as_owner() { runuser -u postgres -- "$@"; }
else
    as_owner() { "$@"; }
fi
clean_up() {
    for server in first second; do
        as_owner "$programs/pg_ctl" -D "$folder/$server/data" -m immediate stop || true
    done
    rm -rf "$folder"
}
trap 'clean_up >/dev/null 2>&1' EXIT
cd "$folder"
start() {
    as_owner "$programs/pg_ctl" -D "$folder/$1/data" -w -s -l "$folder/$1/log"         -o "-k $folder/$1 -c listen_addresses= -c fsync=off" start
}
as_owner mkdir first second
as_owner "$programs/initdb" -D first/data -A trust -U postgres -E UTF8 --no-sync --locale=C.UTF-8
start first
as_owner "$programs/pg_basebackup" -h "$folder/first" -U postgres -D "$folder/second/data"     -R -X stream -c fast --no-sync
start second
as_owner "$programs/psql" -h "$folder/first" -U postgres -q     -c "ALTER SYSTEM SET synchronous_standby_names = '*'" -c "SELECT pg_reload_conf()"
echo
echo ready
cat >/dev/null
"#;

/// Starts a PgBouncer in the folder `$1`, in front of the server with its socket in the folder `$2`.
const POOLER_SCRIPT: &str = r#"
set -eu
folder=$1 server=$2
PATH=$PATH:/usr/sbin
cat >"$folder/pgbouncer.ini" <<END
[databases]
* = host=$server user=postgres
[pgbouncer]
listen_port = 6432
unix_socket_dir = $folder
auth_type = any
pool_mode = transaction
default_pool_size = 2
logfile = $folder/log
pidfile = $folder/pid
END
if [ "$(id -u)" = 0 ]; then
    chown -R postgres "$folder"
    as_owner() { runuser -u postgres -- "$@"; }
else
    as_owner() { "$@"; }
fi
clean_up() {
    kill "$(cat "$folder/pid")" || true
    rm -rf "$folder"
}
trap 'clean_up >/dev/null 2>&1' EXIT
as_owner pgbouncer -d -q "$folder/pgbouncer.ini"
while [ ! -S "$folder/.s.PGSQL.6432" ]; do sleep 0.05; done
echo
echo ready
cat >/dev/null
"#;

/// An empty database that is removed at the end of the test.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) engine: Engine,
    pub(crate) url: String,
    folder: Option<TempDir>,
    /// Holds the pipe that stops the pooler when it closes, if there is one.
    _pooler: Option<Child>,
}

impl Database {
    /// An empty SQLite file.
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let url = format!("sqlite://{}/test.db", folder.path().display());
        Self { engine: Engine::Sqlite, url, folder: Some(folder), _pooler: None }
    }

    /// An empty PostgreSQL database, or `None` if its programs are not installed.
    pub(crate) async fn postgres() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let server = Server::of_this_run()?;
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut connection = connect_postgres(&server.url("postgres")).await;
        let create = AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0"));
        sqlx::raw_sql(create).execute(&mut connection).await.expect("a database is created");
        connection.close().await.expect("the connection is closed");
        Some(Self { engine: Engine::Postgres, url: server.url(&name), folder: None, _pooler: None })
    }

    /// An empty PostgreSQL database behind a PgBouncer in transaction mode with fewer sessions than clients, or `None`
    /// if their programs are not installed.
    pub(crate) async fn behind_pgbouncer() -> Option<Self> {
        let direct = Self::postgres().await?;
        if !has_pgbouncer() {
            return None;
        }
        let (_, name) = direct.url.rsplit_once('/').expect("the database has a name");
        let server = &Server::of_this_run()?.folder;
        let folder = tempfile::Builder::new().prefix("ocr-gateway-pgbouncer-").tempdir();
        // The shell removes the folder.
        let folder = folder.expect("there is a temporary folder").keep();
        let pooler = start_shell(POOLER_SCRIPT, &folder, server, None);
        let folder = folder.to_str().expect("the folder's name is text").replace('/', "%2F");
        let url = format!("postgres://postgres@{folder}:6432/{name}");
        Some(Self { engine: Engine::Postgres, url, folder: None, _pooler: Some(pooler) })
    }

    /// An empty database of each installed engine.
    pub(crate) async fn of_each_engine() -> Vec<Self> {
        let mut databases = vec![Self::sqlite()];
        databases.extend(Self::postgres().await);
        databases
    }

    /// A connection to it, as another replica has one.
    pub(crate) async fn connect(&self) -> Store {
        store::connect(&self.url, StoreOptions::default()).await.expect("the database answers")
    }

    /// A connection to it, after the migrations.
    pub(crate) async fn open(&self) -> Store {
        let store = self.connect().await;
        store.migrate().await.expect("the migrations apply");
        store
    }

    /// Runs SQL for both engines, directly on the database.
    pub(crate) async fn execute(&self, sql: &'static str) {
        self.try_execute(sql).await.expect(sql);
    }

    /// The same for SQL that may be refused.
    pub(crate) async fn try_execute(&self, sql: &'static str) -> Result<(), sqlx::Error> {
        match self.engine {
            Engine::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.url).await?;
                sqlx::raw_sql(sql).execute(&mut connection).await.map(|_| ())
            }
            Engine::Postgres => {
                let mut connection = connect_postgres(&self.url).await;
                sqlx::raw_sql(sql).execute(&mut connection).await.map(|_| ())
            }
        }
    }

    /// Applies the migrations up to this one, as an older version of the program did.
    pub(crate) async fn migrate_to(&self, last: i64) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let folder = folder.join(match self.engine {
            Engine::Sqlite => "sqlite",
            Engine::Postgres => "postgres",
        });
        let migrator = Migrator::new(folder).await.expect("the migrations are files");
        let migrated = match self.engine {
            Engine::Sqlite => {
                let file = SqliteConnectOptions::from_str(&self.url).expect("it is an address");
                let file = file.create_if_missing(true);
                let mut connection = file.connect().await.expect("the file is made");
                migrator.run_to(last, &mut connection).await
            }
            Engine::Postgres => migrator.run_to(last, &mut connect_postgres(&self.url).await).await,
        };
        migrated.expect("the migrations apply");
    }

    /// Its whole schema and its applied migrations, as text.
    pub(crate) async fn schema(&self) -> String {
        let applied = "SELECT version || ' ' || description FROM _sqlx_migrations ORDER BY version";
        let (schema, applied) = match self.engine {
            Engine::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.url).await.expect("it opens");
                let schema = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
                let schema: Vec<String> =
                    sqlx::query_scalar(schema).fetch_all(&mut connection).await.expect(schema);
                let applied = sqlx::query_scalar(applied).fetch_all(&mut connection).await;
                (schema.join("\n"), applied.expect("migrations were applied"))
            }
            Engine::Postgres => (dump_of_schema(&self.url), self.texts(applied).await),
        };
        format!("{schema}\n{}", applied.join("\n"))
    }

    /// The pairs of numbers that a query returns. The second number can be missing.
    pub(crate) async fn numbers(&self, sql: &'static str) -> Vec<(i64, Option<i64>)> {
        let pairs = match self.engine {
            Engine::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.url).await.expect("it opens");
                sqlx::query_as(sql).fetch_all(&mut connection).await
            }
            Engine::Postgres => {
                sqlx::query_as(sql).fetch_all(&mut connect_postgres(&self.url).await).await
            }
        };
        pairs.expect(sql)
    }

    /// The texts of the only column of a PostgreSQL query.
    pub(crate) async fn texts(&self, sql: &'static str) -> Vec<String> {
        let mut connection = connect_postgres(&self.url).await;
        sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect(sql)
    }

    /// The folder of the SQLite file.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().expect("the database is a SQLite file").path()
    }
}

/// A separate PostgreSQL, for a test that freezes it.
#[derive(Debug)]
pub(crate) struct PrivatePostgres(Server);

impl PrivatePostgres {
    /// Starts one, or returns `None` if its programs are not installed.
    pub(crate) fn start() -> Option<Self> {
        Server::start_if_installed().map(Self)
    }

    /// Starts one that listens on a port of this machine, without access control, or returns `None` if its programs are
    /// not installed.
    pub(crate) fn start_on(port: u16) -> Option<Self> {
        Server::start_by_if_installed(SERVER_SCRIPT, Some(port)).map(Self)
    }

    /// Its first database.
    pub(crate) fn url(&self) -> String {
        self.0.url("postgres")
    }

    /// Freezes all its processes: connections stay open without answers.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Resumes them.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let file = self.0.folder.join("data/postmaster.pid");
        let file = std::fs::read_to_string(file).expect("the server runs");
        let postmaster = file.lines().next().expect("its process stands in the first line");
        // The parent first, so that it starts no more children.
        let script = "kill -\"$1\" \"$2\" && pkill -\"$1\" -P \"$2\"";
        let sent = Command::new("sh").args(["-c", script, "signal", signal, postmaster]).status();
        assert!(sent.expect("sh can be started").success());
    }
}

/// A primary and its standby. The standby confirms each commit before the primary answers.
#[derive(Debug)]
pub(crate) struct PostgresPair(Server);

/// One of the two servers of a [`PostgresPair`].
#[derive(Debug, Clone)]
pub(crate) struct PostgresServer {
    folder: PathBuf,
}

impl PostgresPair {
    /// Starts both, or returns `None` if PostgreSQL's programs are not installed.
    pub(crate) fn start() -> Option<Self> {
        Server::start_by_if_installed(PAIR_SCRIPT, None).map(Self)
    }

    /// The server that is the primary at the start.
    pub(crate) fn first(&self) -> PostgresServer {
        PostgresServer { folder: self.0.folder.join("first") }
    }

    /// The server that is the standby at the start.
    pub(crate) fn second(&self) -> PostgresServer {
        PostgresServer { folder: self.0.folder.join("second") }
    }
}

impl PostgresServer {
    /// Its database.
    pub(crate) fn url(&self) -> String {
        url_of(&self.folder, "postgres")
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    /// Runs statements one by one.
    pub(crate) async fn execute(&self, statements: &[&'static str]) {
        let mut connection = connect_postgres(&self.url()).await;
        for &statement in statements {
            sqlx::raw_sql(statement).execute(&mut connection).await.expect(statement);
        }
    }

    /// The number that a query returns.
    pub(crate) async fn number(&self, query: &'static str) -> i64 {
        let mut connection = connect_postgres(&self.url()).await;
        sqlx::query_scalar(query).fetch_one(&mut connection).await.expect(query)
    }
}

/// The PostgreSQL of this test run.
#[derive(Debug)]
struct Server {
    folder: PathBuf,
    /// Holds the pipe that stops the server when it closes.
    _shell: Child,
}

impl Server {
    fn of_this_run() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        SERVER.get_or_init(Self::start_if_installed).as_ref()
    }

    fn start_if_installed() -> Option<Self> {
        Self::start_by_if_installed(SERVER_SCRIPT, None)
    }

    fn start_by_if_installed(script: &str, port: Option<u16>) -> Option<Self> {
        if let Some(programs) = postgres_programs() {
            return Some(Self::start_by(script, &programs, port));
        }
        let missing = "PostgreSQL's server programs are not installed (apt install postgresql)";
        let is_required = env::var_os("OCR_GATEWAY_REQUIRE_PROGRAMS").is_some_and(|set| set == "1");
        assert!(!is_required, "{missing}");
        println!("skipped on PostgreSQL: {missing}");
        None
    }

    fn start_by(script: &str, programs: &Path, port: Option<u16>) -> Self {
        let folder = tempfile::Builder::new().prefix("ocr-gateway-postgres-").tempdir();
        // The shell removes the folder.
        let folder = folder.expect("there is a temporary folder").keep();
        let shell = start_shell(script, &folder, programs, port);
        Self { folder, _shell: shell }
    }

    fn url(&self, database: &str) -> String {
        url_of(&self.folder, database)
    }
}

/// The address of a database of the server with its socket in `folder`.
fn url_of(folder: &Path, database: &str) -> String {
    let folder = folder.to_str().expect("the folder's name is text").replace('/', "%2F");
    format!("postgres://postgres@{folder}/{database}")
}

/// Starts a script that starts servers in a folder, and waits until they are ready.
fn start_shell(script: &str, folder: &Path, other: &Path, port: Option<u16>) -> Child {
    let mut shell = Command::new("sh")
        .args(["-c", script, "shell"])
        .args([folder, other])
        .arg(port.map(|port| port.to_string()).unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // A separate process group: Ctrl-C then ends the tests first, and the shell after them.
        .process_group(0)
        .spawn()
        .expect("sh can be started");
    let output = shell.stdout.take().expect("the output is piped");
    await_ready(BufReader::new(output));
    shell
}

/// Whether PgBouncer is installed. A run that must not skip tests fails without it.
fn has_pgbouncer() -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders)
        .chain([PathBuf::from("/usr/sbin")])
        .any(|folder| folder.join("pgbouncer").is_file());
    let is_required = env::var_os("OCR_GATEWAY_REQUIRE_PROGRAMS").is_some_and(|set| set == "1");
    assert!(found || !is_required, "pgbouncer is missing and OCR_GATEWAY_REQUIRE_PROGRAMS is 1");
    if !found {
        println!("skipped: pgbouncer is not installed (apt install pgbouncer)");
    }
    found
}

/// Reads the output of the shell until it is ready.
fn await_ready(mut output: impl BufRead) {
    let mut printed = String::new();
    while output.read_line(&mut printed).is_ok_and(|length| length > 0) {
        if printed.ends_with("\nready\n") {
            return;
        }
    }
    panic!("the private PostgreSQL did not start:\n{printed}");
}

/// The folder with the newest server programs. Debian has a folder for each version, which is not on the search path.
fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    let newest_first = versions.into_iter().rev().map(|(_, folder)| folder);
    newest_first.chain(env::split_paths(&path)).find(|folder| {
        ["initdb", "pg_ctl", "postgres"].iter().all(|program| folder.join(program).is_file())
    })
}

/// The schema of a database, as `pg_dump` prints it.
fn dump_of_schema(url: &str) -> String {
    let programs = postgres_programs().expect("the server was started by them");
    let dumped = Command::new(programs.join("pg_dump")).args(["--schema-only", url]).output();
    let dumped = dumped.expect("pg_dump can be started");
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    let text = String::from_utf8(dumped.stdout).expect("it is text");
    // These lines differ in each run.
    let lines = text.lines().filter(|line| !line.contains("restrict "));
    lines.collect::<Vec<_>>().join("\n")
}

async fn connect_postgres(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the private PostgreSQL answers")
}
