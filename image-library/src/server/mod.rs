// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library server: a library over HTTP, for agents and for recovery hosts.
//!
//! This version speaks plain HTTP and knows no tokens: whoever reaches its address may read
//! every image and add new ones. It listens on the loopback address unless told otherwise; until
//! TLS and tokens are there, reach it through SSH or a trusted network only. The routes already
//! stand in two groups, for those who read and for agents that add, which is where the roles go.
//!
//! The server trusts nothing it receives: every body is bounded, every chunk is decompressed and
//! hashed again by the library before it is kept, and an upload becomes visible with its commit
//! only. A stop (SIGTERM, SIGINT) lets requests under way end.

mod failure;
mod images;
mod uploads;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use tokio::sync::oneshot;

use crate::access::Library;
use crate::error::{Error, Result};
use crate::protocol::{API_VERSION, SERVICE, ServiceDescription};
use crate::server::failure::RequestFailure;

/// How long requests under way may take after a stop was asked for.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// The most bytes of a JSON body: an image draft with its machine description.
const JSON_BYTES_MAX: usize = 8 << 20;

/// A server that has its address and is not running yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    library: Arc<dyn Library>,
}

impl Server {
    /// Takes the address; port 0 takes any free one.
    pub fn bind(library: Arc<dyn Library>, address: SocketAddr) -> Result<Self> {
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
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
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
        let address = self.address;
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
            stop: Some(stop),
            serving: Some(serving),
        })
    }

    async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let (stopping, stop_seen) = oneshot::channel::<()>();
        let graceful = axum::serve(listener, router(self.library)).with_graceful_shutdown(async {
            stop.await;
            // Nobody listens only when serving has ended already.
            let _ = stopping.send(());
        });
        tokio::select! {
            served = graceful.into_future() => served,
            () = async {
                if stop_seen.await.is_ok() {
                    tokio::time::sleep(STOP_PATIENCE).await;
                } else {
                    std::future::pending::<()>().await;
                }
            } => Ok(()),
        }
    }
}

/// A server at work; dropping it stops it.
#[derive(Debug)]
pub struct RunningServer {
    address: SocketAddr,
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
        format!("http://{}", self.address)
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
    devices: Arc<images::OpenDevices>,
    sessions: Arc<uploads::Sessions>,
}

fn router(library: Arc<dyn Library>) -> Router {
    let shared = Shared {
        library,
        devices: Arc::default(),
        sessions: Arc::default(),
    };
    Router::new()
        .route("/v1", get(describe))
        .merge(images::routes())
        .merge(uploads::routes())
        .fallback(|| async { RequestFailure::not_found("no such address on a library server") })
        .method_not_allowed_fallback(|| async {
            RequestFailure::invalid("this address does not take that method")
        })
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .layer(middleware::from_fn(log))
        .with_state(shared)
}

async fn describe(State(shared): State<Shared>) -> Json<ServiceDescription> {
    Json(ServiceDescription {
        service: SERVICE.to_owned(),
        api: API_VERSION,
        chunk_size_bytes: shared.library.chunk_size_bytes(),
    })
}

async fn log(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let started = std::time::Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let milliseconds = started.elapsed().as_millis();
    if status >= 500 {
        tracing::error!(%method, path, status, milliseconds);
    } else if status >= 400 {
        tracing::warn!(%method, path, status, milliseconds);
    } else {
        tracing::debug!(%method, path, status, milliseconds);
    }
    response
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
