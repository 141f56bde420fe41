// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library server: a library over HTTPS, for agents and for recovery hosts.
//!
//! Who makes a request is told by its token; a table says which role may use what. Without
//! TLS, or without tokens, it listens on loopback addresses only.
//!
//! The server trusts nothing it receives: every body is bounded in length and time, every chunk is
//! decompressed and hashed again by the library before it is kept, and an upload becomes visible
//! with its commit only. A stop (SIGTERM, SIGINT) lets requests under way end.

mod connections;
mod failure;
mod gate;
mod hashes;
mod images;
mod metrics;
mod options;
mod rate;
mod request;
mod routes;
mod service;
mod sessions;
#[cfg(test)]
mod tests;
mod tls;
mod trash;
mod uploads;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use disk::ReadAt;
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::access::{DiskHashes, Library};
use crate::audit::{AuditAction, AuditEvent};
use crate::error::{Error, Result};
use crate::id::{DiskIndex, ImageId, ServerName};
use crate::server::connections::Serving;
use crate::server::failure::RequestFailure;
use crate::server::gate::{Gate, Principal};
use crate::server::metrics::Metrics;
use crate::server::rate::RateLimit;
use crate::token::TokenId;

pub use crate::server::options::{Access, Limits, ServerOptions, Transport};
pub use crate::server::tls::TlsIdentity;

/// How long requests under way may take after a stop was asked for.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// In which what begins and commits uploads of one server is counted.
const UPLOADS_WINDOW: Duration = Duration::from_secs(600);
/// In which the same reader of the same disk is told once.
const READERS_WINDOW: Duration = Duration::from_secs(3600);

/// A server that has its address and is not running yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    library: Arc<dyn Library>,
    options: ServerOptions,
}

impl Server {
    /// Takes the address; port 0 takes any free one.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`]; [`Error::Refused`] for an address that others can reach, when the server
    /// would speak plain HTTP or let everybody in.
    pub fn bind(
        library: Arc<dyn Library>,
        address: SocketAddr,
        options: ServerOptions,
    ) -> Result<Self> {
        let is_open = matches!(options.access, Access::Everybody);
        let is_plain = matches!(options.transport, Transport::Plain);
        if (is_open || is_plain) && !address.ip().is_loopback() {
            return Err(Error::Refused {
                what: "the address to listen on",
                problem: format!("{address} can be reached by others: that needs TLS and tokens"),
            });
        }
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = listen().map_err(|source| Error::Listen { address, source })?;
        Ok(Self {
            listener,
            address,
            library,
            options,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, as [`crate::open_library`] takes it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = match self.options.transport {
            Transport::Tls(_) => "https",
            Transport::Plain => "http",
        };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until SIGTERM or SIGINT, then lets requests under way end.
    pub fn run(self) -> Result<()> {
        let address = self.address;
        let failed = |source| Error::Listen { address, source };
        let runtime = runtime().map_err(failed)?;
        runtime
            .block_on(async { self.serve(asked_to_stop()?).await })
            .map_err(failed)?;
        runtime.shutdown_timeout(STOP_PATIENCE);
        Ok(())
    }

    /// Serves on threads of its own until the handle is stopped or dropped.
    pub fn start(self) -> Result<RunningServer> {
        let (address, url) = (self.address, self.url());
        let failed = |source| Error::Listen { address, source };
        let runtime = runtime().map_err(failed)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = std::thread::Builder::new()
            .name("library server".to_owned())
            .spawn(move || {
                // A dropped sender means the same as a sent stop.
                let served = runtime.block_on(self.serve(async { drop(stopped.await) }));
                if let Err(problem) = served {
                    tracing::error!(%problem, "the library server ended");
                }
                runtime.shutdown_timeout(STOP_PATIENCE);
            })
            .map_err(failed)?;
        Ok(RunningServer {
            address,
            url,
            stop: Some(stop),
            serving: Some(serving),
        })
    }

    async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let (tls, authority_pem) = match self.options.transport {
            Transport::Plain => (None, None),
            Transport::Tls(identity) => {
                let config = identity.config().map_err(std::io::Error::other)?;
                let pem = identity.authority_pem().map(str::to_owned);
                tokio::spawn(Arc::new(*identity).keep_fresh());
                (Some(TlsAcceptor::from(Arc::new(config))), pem)
            }
        };
        let limits = self.options.limits;
        let shared = Shared::new(self.library, self.options.access, limits, authority_pem);
        let router = routes::router(&shared);
        let serving = Serving {
            shared,
            router,
            tls,
        };
        serving.run(listener, stop).await;
        Ok(())
    }
}

/// A server at work; dropping it stops it.
#[derive(Debug)]
pub struct RunningServer {
    address: SocketAddr,
    url: String,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

impl RunningServer {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, as [`crate::open_library`] takes it.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            // A panic of that thread was reported when it happened.
            let _ = serving.join();
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .enable_all()
        .build()
}

/// Ends when this process is asked to.
fn asked_to_stop() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
    })
}

/// What handlers share.
#[derive(Debug, Clone)]
struct Shared {
    library: Arc<dyn Library>,
    devices: Arc<images::Opened<dyn ReadAt>>,
    hashes: Arc<images::Opened<dyn DiskHashes>>,
    sessions: Arc<sessions::Sessions>,
    gate: Arc<Gate>,
    begins: Arc<RateLimit<ServerName>>,
    /// Each try leaves an event in the audit trail, which nobody may fill.
    commits: Arc<RateLimit<ServerName>>,
    /// Who read which disk lately: the audit trail tells it once in a while.
    readers: Arc<RateLimit<(Option<TokenId>, ImageId, DiskIndex)>>,
    requests: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    limits: Limits,
    stopping: Arc<AtomicBool>,
    /// The certificate of the library's authority, where this server shows one of its.
    authority_pem: Option<Arc<str>>,
}

impl Shared {
    fn new(
        library: Arc<dyn Library>,
        access: Access,
        limits: Limits,
        authority_pem: Option<String>,
    ) -> Self {
        Self {
            library,
            devices: Arc::default(),
            hashes: Arc::default(),
            sessions: Arc::default(),
            gate: Arc::new(Gate::new(access, &limits)),
            begins: Arc::new(RateLimit::new(limits.uploads_per_server, UPLOADS_WINDOW)),
            commits: Arc::new(RateLimit::new(limits.uploads_per_server, UPLOADS_WINDOW)),
            readers: Arc::new(RateLimit::new(1, READERS_WINDOW)),
            requests: Arc::new(Semaphore::new(limits.requests)),
            metrics: Arc::default(),
            limits,
            stopping: Arc::default(),
            authority_pem: authority_pem.map(Arc::from),
        }
    }

    /// Writes what was done to the audit trail. It was done already, or has to be done also when
    /// the store is full (reading in an emergency): a failure is logged and counted.
    fn audit(
        &self,
        principal: &Principal,
        action: AuditAction,
        about: impl FnOnce(AuditEvent) -> AuditEvent,
    ) {
        let Some(library) = self.gate.library() else {
            return;
        };
        let Some(event) = principal.event(library.now(), action) else {
            return;
        };
        if let Err(error) = library.audit(&about(event)) {
            self.metrics.lost_audit_events.increment();
            tracing::error!(%error, ?action, "the audit trail could not be written");
        }
    }
}

/// Runs what may block on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T, RequestFailure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| RequestFailure::from(&error)),
        Err(_panicked) => Err(RequestFailure::internal()),
    }
}
