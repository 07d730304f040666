//! The measured subjects: the gateway, nginx as a bare proxy, and a direct connection.
//!
//! The gateway runs as in production, with a key, a cap that takes effect, metrics, log lines of
//! level info into a file and an SQLite database; only the vendor's rate limits are lifted. nginx
//! does the minimum of a hop: it passes bytes on without parsing them.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{env, io, thread};

use tempfile::TempDir;

use crate::cell::Cell;
use crate::http::{self, Connection};
use crate::load::Outcome;
use crate::process::{self, Process};
use crate::terminal::Failure;
use crate::upload::{self, Form, Upload};
use crate::upstream::Manner;

/// The timeout for a program's start.
const START: Duration = Duration::from_secs(20);

/// The compatible protocol's path, at DashScope and at the gateway.
pub(crate) const COMPATIBLE: &str = "/compatible-mode/v1/chat/completions";

/// The cores and the directory of the run.
#[derive(Debug)]
pub(crate) struct Rig {
    directory: TempDir,
    /// The core of the gateway or nginx.
    subject_core: Option<usize>,
    /// The core of load and upstream.
    load_core: Option<usize>,
}

/// A measured server, and the form of its requests.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Its name in the table.
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// The address of its metrics; `None` if it has none.
    pub(crate) metrics: Option<SocketAddr>,
    path: &'static str,
    /// The header line with its key.
    pub(crate) authorization: String,
    /// The posted body.
    pub(crate) form: Form,
    /// A text that its answer must contain.
    expected: String,
    /// The measured process; `None` if load and upstream are connected directly.
    pub(crate) process: Option<Rc<Process>>,
}

impl Rig {
    /// A rig with a new directory, which is removed at the end.
    pub(crate) fn new(
        uploads: &[Upload],
        subject_core: Option<usize>,
        load_core: Option<usize>,
    ) -> Result<Self, Failure> {
        let rig = Self { directory: tempfile::tempdir()?, subject_core, load_core };
        for upload in uploads {
            for form in Form::ALL {
                fs::write(rig.body(upload, form), form.body(upload))?;
            }
        }
        Ok(rig)
    }

    /// Starts an upstream.
    pub(crate) fn upstream(&self, manner: &Manner) -> Result<(Process, SocketAddr), Failure> {
        let address = free_address()?;
        let mut command = process::on_core(self.load_core, env::current_exe()?.as_os_str());
        command.args(["upstream", "--listen", &address.to_string()]);
        command.args(manner.arguments());
        let mut process = Process::start(command, &self.file("upstream.log"))?;
        wait_for(&mut process, address)?;
        Ok((process, address))
    }

    /// The direct connection.
    pub(crate) fn direct(upstream: SocketAddr) -> Subject {
        Subject::of_json("direct", upstream, None)
    }

    /// Starts nginx as a plain proxy.
    pub(crate) fn nginx(&self, program: &Path, upstream: SocketAddr) -> Result<Subject, Failure> {
        let address = free_address()?;
        let config = self.file("nginx.conf");
        fs::write(&config, nginx_config(self.directory.path(), address, upstream))?;
        let mut command = process::on_core(self.subject_core, program.as_os_str());
        command.arg("-p").arg(self.directory.path()).arg("-c").arg(config);
        let mut process = Process::start(command, &self.file("nginx.log"))?;
        wait_for(&mut process, address)?;
        Ok(Subject::of_json("nginx", address, Some(process)))
    }

    /// Starts the gateway with capacity for all concurrent requests.
    pub(crate) fn gateway(&self, program: &Path, upstream: SocketAddr) -> Result<Subject, Failure> {
        self.gateway_with(program, upstream, &[])
    }

    /// The same with more settings, as environment variables.
    pub(crate) fn gateway_with(
        &self,
        program: &Path,
        upstream: SocketAddr,
        settings: &[(&str, &str)],
    ) -> Result<Subject, Failure> {
        self.gateway_before(program, upstream, "", settings)
    }

    /// The same with more of the configuration, such as other endpoints.
    pub(crate) fn gateway_before(
        &self,
        program: &Path,
        upstream: SocketAddr,
        more: &str,
        settings: &[(&str, &str)],
    ) -> Result<Subject, Failure> {
        let with_settings = |mut command: Command| {
            command.envs(settings.iter().copied());
            command
        };
        self.gateway_in(program, upstream, [ROOM, more], with_settings)
    }

    /// Starts the gateway, with a tenant and a key that its own commands create. The lines go to
    /// its section `[server]` and to the end of its configuration, and `around` may wrap its
    /// command in another.
    pub(crate) fn gateway_in(
        &self,
        program: &Path,
        upstream: SocketAddr,
        [server, more]: [&str; 2],
        around: impl FnOnce(Command) -> Command,
    ) -> Result<Subject, Failure> {
        let (address, metrics) = (free_address()?, free_address()?);
        let config = self.config_of(address);
        let common = gateway_config(self.directory.path(), [address, metrics], upstream, server);
        fs::write(&config, common + more)?;
        let cap = upload::MAX_PIXELS.to_string();
        let ask = |arguments: &[&str]| {
            output(Command::new(program).arg("--config").arg(&config).args(arguments))
        };
        ask(&["migrate"])?;
        ask(&["tenant", "create", "bench", "--max-pixels", &cap, "--on-exceed", "clamp"])?;
        let key = ask(&["key", "create", "bench"])?;
        let mut command = process::on_core(self.subject_core, program.as_os_str());
        command.arg("--config").arg(&config).arg("serve").env("DASHSCOPE_API_KEY", "bench");
        let mut process = Process::start(around(command), &self.file("gateway.log"))?;
        wait_for(&mut process, address)?;
        let tokens = upload::IMAGE_TOKENS;
        Ok(Subject {
            name: name_of(program),
            address,
            metrics: Some(metrics),
            path: "/ocr",
            authorization: format!("Authorization: Bearer {}", key.trim()),
            form: Form::File,
            expected: format!(r#""image_tokens":{{"estimated":{tokens},"billed":{tokens}}}"#),
            process: Some(Rc::new(process)),
        })
    }

    /// Creates another tenant without limits. Returns its key.
    pub(crate) fn tenant(
        &self,
        subject: &Subject,
        program: &Path,
        name: &str,
    ) -> Result<String, Failure> {
        let config = self.config_of(subject.address);
        let ask = |arguments: &[&str]| {
            output(Command::new(program).arg("--config").arg(&config).args(arguments))
        };
        ask(&["tenant", "create", name])?;
        Ok(ask(&["key", "create", name])?.trim().to_owned())
    }

    fn config_of(&self, gateway: SocketAddr) -> PathBuf {
        self.file(&format!("gateway-{}.toml", gateway.port()))
    }

    /// The gateway's answer at `path`.
    pub(crate) fn get(subject: &Subject, path: &str) -> Result<String, Failure> {
        let mut connection = Connection::open(subject.address)?;
        let key = &subject.authorization;
        connection
            .send(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{key}\r\n\r\n").as_bytes())?;
        let head = connection.head()?.ok_or("the connection was closed")?;
        let answer = String::from_utf8(connection.body(head.length()?)?)?;
        if head.status() != Some(200) {
            return Err(format!("{path}: {}: {answer}", head.first_line).into());
        }
        Ok(answer)
    }

    /// The output of a gateway's own audit of its ledger.
    ///
    /// # Errors
    ///
    /// An account differs from its entries.
    pub(crate) fn audit(&self, subject: &Subject, program: &Path) -> Result<String, Failure> {
        let config = self.config_of(subject.address);
        let audit = Command::new(program).arg("--config").arg(config).arg("audit").output()?;
        let told = String::from_utf8_lossy(&audit.stdout).into_owned();
        if audit.status.success() { Ok(told) } else { Err(told.into()) }
    }

    /// Sends one request and checks the answer, to ensure that the intended work is measured.
    pub(crate) fn check(&self, subject: &Subject, upload: &Upload) -> Result<(), Failure> {
        let body = fs::read(self.body(upload, subject.form))?;
        let mut connection = Connection::open(subject.address)?;
        connection.send(&http::request(subject.path, &subject.headers(), &body))?;
        let head = connection.head()?.ok_or("the connection was closed")?;
        let answer = String::from_utf8(connection.body(head.length()?)?)?;
        if head.status() != Some(200) || !answer.contains(&subject.expected) {
            return Err(format!("{}: {}: {answer}", subject.name, head.first_line).into());
        }
        Ok(())
    }

    /// Loads `subject` as the cell defines, for `seconds`.
    pub(crate) fn load(
        &self,
        subject: &Subject,
        cell: &Cell<'_>,
        seconds: f64,
    ) -> Result<Outcome, Failure> {
        let mut command = self.asking("load", subject.address)?;
        command.args(["--path", subject.path]);
        command.args(subject.headers().iter().flat_map(|header| ["--header", header]));
        command.arg("--body").arg(self.body(cell.upload, subject.form));
        command.args(["--connections", &cell.connections.to_string()]);
        output(command.args(["--seconds", &seconds.to_string()]))?.parse()
    }

    /// The first arguments of a command in a role that sends requests.
    pub(crate) fn asking(&self, role: &str, address: SocketAddr) -> io::Result<Command> {
        let mut command = process::on_core(self.load_core, env::current_exe()?.as_os_str());
        command.args([role, "--address", &address.to_string()]);
        Ok(command)
    }

    fn body(&self, upload: &Upload, form: Form) -> PathBuf {
        self.file(&format!("{}.{}", upload.name.replace(' ', "-"), form.extension()))
    }

    /// The path of a file in the directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Subject {
    fn of_json(name: &str, address: SocketAddr, process: Option<Process>) -> Self {
        Self {
            name: name.to_owned(),
            address,
            metrics: None,
            path: COMPATIBLE,
            authorization: "Authorization: Bearer bench".to_owned(),
            form: Form::Json,
            expected: r#""image_tokens":"#.to_owned(),
            process: process.map(Rc::new),
        }
    }

    /// The same gateway, with the picture as the body.
    pub(crate) fn asked_with_file(&self) -> Self {
        Self {
            name: self.name.clone(),
            authorization: self.authorization.clone(),
            expected: self.expected.clone(),
            process: self.process.clone(),
            ..*self
        }
    }

    /// The same gateway, with the picture in a form.
    pub(crate) fn asked_with_multipart(&self) -> Self {
        Self {
            name: format!("{}, multipart", self.name),
            form: Form::Multipart,
            authorization: self.authorization.clone(),
            expected: self.expected.clone(),
            process: self.process.clone(),
            ..*self
        }
    }

    /// The same gateway, in the vendor's protocol: the bytes that nginx passes on.
    pub(crate) fn asked_as_vendor(&self) -> Self {
        Self {
            name: format!("{}, drop-in", self.name),
            path: COMPATIBLE,
            form: Form::Json,
            authorization: self.authorization.clone(),
            expected: format!(r#""image_tokens":{}"#, upload::IMAGE_TOKENS),
            process: self.process.clone(),
            ..*self
        }
    }

    fn headers(&self) -> [String; 2] {
        [self.authorization.clone(), format!("Content-Type: {}", self.form.media_type())]
    }
}

/// The name in the tables for the gateway at `path`.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Capacity for all concurrent requests, here and in [`nginx_config`].
const ROOM: &str = "max_in_flight_requests = 2048\nmax_connections = 4096\n";

/// The defaults except for `settings`, lines of the section `[server]`.
fn gateway_config(
    directory: &Path,
    [address, metrics]: [SocketAddr; 2],
    upstream: SocketAddr,
    settings: &str,
) -> String {
    let database = directory.join(format!("gateway-{}.db", address.port()));
    format!(
        "[server]\nlisten = \"{address}\"\nmetrics_listen = \"{metrics}\"\n\
         {settings}\
         [database]\nurl = \"sqlite://{}\"\n\
         [upstream]\nbase_url = \"http://{upstream}\"\n\
         [models.\"{}\"]\nrpm = 60000000\ntpm = 600000000000\n",
        database.display(),
        upload::MODEL,
    )
}

/// One worker, connections kept on both sides, no access log, and bodies passed on as received.
fn nginx_config(directory: &Path, address: SocketAddr, upstream: SocketAddr) -> String {
    let directory = directory.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {directory}/nginx-{name};"))
        .join(" ");
    format!(
        "daemon off; master_process off; worker_processes 1;\n\
         pid {directory}/nginx.pid; error_log {directory}/nginx-error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_max_body_size 64m; keepalive_requests 1000000000;\n\
         {temporary}\n\
         upstream fake {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen {address}; location / {{\n\
         proxy_pass http://fake; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_request_buffering off; client_body_buffer_size 256k; }} }} }}\n"
    )
}

/// The output of a command, if it succeeds.
fn output(command: &mut Command) -> Result<String, Failure> {
    printed(command.output()?)
}

/// The output of a program, if it succeeded.
pub(crate) fn printed(output: Output) -> Result<String, Failure> {
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn wait_for(process: &mut Process, address: SocketAddr) -> Result<(), Failure> {
    let until = Instant::now() + START;
    while TcpStream::connect(address).is_err() {
        if process.has_ended() || Instant::now() > until {
            return Err(format!("nobody answers at {address}; see its log").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
