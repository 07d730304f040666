//! A running emulator.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::connection;
use crate::engine::choice;
use crate::options::{Options, StartError};
use crate::routes::router;
use crate::service::Service;
use crate::world::World;

/// A running emulator; it stops when this is dropped.
#[derive(Debug)]
pub struct Emulator {
    address: SocketAddr,
    world: Arc<World>,
    serving: JoinSet<()>,
}

impl Emulator {
    /// Binds the address, opens the engine and serves on a task of its own.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the address is taken or Tesseract or one of its languages is missing.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let listen = options.listen;
        let bound = connection::bind(listen).await;
        let (listener, address) = bound.map_err(|source| StartError::Bind { listen, source })?;
        let engine = choice::open(&options.engine).await?;
        let service = Arc::new(Service::new(&options, engine));
        let world = Arc::clone(&service.world);
        let mut serving = JoinSet::new();
        serving.spawn(connection::serve(listener, router(service)));
        Ok(Self { address, world, serving })
    }

    /// The address to call, such as `http://127.0.0.1:41234`, without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The faults and the recorded calls of the emulator.
    pub fn world(&self) -> Arc<World> {
        Arc::clone(&self.world)
    }

    /// Stops at once: connections are closed, and answers in progress are lost. An OCR run in progress still finishes
    /// and is billed, as at the service.
    pub async fn stop(mut self) {
        self.serving.shutdown().await;
    }
}
