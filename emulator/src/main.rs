//! The emulator as a program.

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dashscope_emulator::{Emulator, EngineChoice, Fault, Options};

/// A local emulator of DashScope's Qwen-OCR endpoints. Not the service: see its README.
#[derive(Debug, Parser)]
#[command(name = "dashscope-emulator", version)]
struct Arguments {
    /// Address to listen on
    #[arg(long, env = "DASHSCOPE_EMULATOR_LISTEN", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// API key to accept; repeatable; without any, every key is accepted
    #[arg(long = "api-key", value_name = "KEY")]
    api_keys: Vec<String>,
    /// Tesseract's languages, separated by commas or plus signs
    #[arg(long, value_delimiter = ',', value_name = "LANG")]
    languages: Option<Vec<String>>,
    /// Milliseconds added to every answer
    #[arg(long, default_value_t = 0, value_name = "MILLIS")]
    latency_ms: u64,
    /// Milliseconds between the events of a stream
    #[arg(long, default_value_t = 0, value_name = "MILLIS")]
    stream_interval_ms: u64,
    /// Requests a minute for each key
    #[arg(long)]
    rpm: Option<u64>,
    /// Tokens a minute for each key
    #[arg(long)]
    tpm: Option<u64>,
    /// A fault as JSON, such as '{"code":"Throttling","times":2}'; repeatable
    #[arg(long = "fault", value_name = "JSON", value_parser = fault)]
    faults: Vec<Fault>,
    /// Return this text for every image instead of reading it
    #[arg(long, value_name = "TEXT", conflicts_with = "languages")]
    scripted: Option<String>,
}

fn fault(text: &str) -> Result<Fault, serde_json::Error> {
    serde_json::from_str(text)
}

impl Arguments {
    fn options(&self) -> Options {
        let languages = self.languages.as_ref().map(|groups| {
            groups.iter().flat_map(|group| group.split('+')).map(str::to_owned).collect()
        });
        let engine = match &self.scripted {
            Some(text) => EngineChoice::Scripted(text.clone()),
            None => EngineChoice::Tesseract { languages },
        };
        Options {
            listen: self.listen,
            api_keys: self.api_keys.clone(),
            engine,
            latency: Duration::from_millis(self.latency_ms),
            rpm: self.rpm,
            tpm: self.tpm,
            stream_interval: Duration::from_millis(self.stream_interval_ms),
            ..Options::default()
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "dashscope-emulator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::start(arguments.options()).await?;
    let world = emulator.world();
    for fault in arguments.faults {
        world.add_fault(fault);
    }
    let address = emulator.base_url();
    writeln!(
        std::io::stderr(),
        "dashscope-emulator: a stand-in, not DashScope; listening on {address}"
    )?;
    stop_signal().await?;
    emulator.stop().await;
    Ok(())
}

/// Waits for an interrupt, or for a termination signal, which stops containers.
async fn stop_signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
