// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections: taken, spoken TLS with, bounded in number and patience, ended in order.
//!
//! A connection that stands still is cut: in the handshake, while it sends the head of a request
//! or has nothing to ask, and while it does not take an answer. Bodies are looked after by
//! [`super::request`].

use std::collections::HashMap;
use std::future::Future;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use crate::server::rate::counted_as;
use crate::server::{STOP_PATIENCE, Shared};

/// After an error of accepting (too many open files) nothing is accepted for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A request's head is at most so long.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// From where a request comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// What connections are served with.
pub(super) struct Serving {
    pub(super) shared: Shared,
    pub(super) router: Router,
    pub(super) tls: Option<TlsAcceptor>,
}

impl Serving {
    /// Serves until `stop`, then lets requests under way end while new ones are told to come again.
    pub(super) async fn run(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let serving = Arc::new(self);
        let open = Arc::<Open>::default();
        let graceful = GracefulShutdown::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = Arc::clone(&serving).accept(&listener, &open, &graceful) => {}
            }
        }
        serving.shared.stopping.store(true, Ordering::Relaxed);
        let late = GracefulShutdown::new();
        let mut ended = pin!(timeout(STOP_PATIENCE, graceful.shutdown()));
        loop {
            tokio::select! {
                _ = &mut ended => break,
                () = Arc::clone(&serving).accept(&listener, &open, &late) => {}
            }
        }
    }

    async fn accept(
        self: Arc<Self>,
        listener: &TcpListener,
        open: &Arc<Open>,
        graceful: &GracefulShutdown,
    ) {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                return sleep(ACCEPT_PAUSE).await;
            }
        };
        let limits = &self.shared.limits;
        let Some(place) = open.take(peer.ip(), limits.connections, limits.connections_per_peer)
        else {
            self.shared.metrics.refused_connections.increment();
            tracing::debug!(%peer, "a connection beyond the limit was closed");
            return;
        };
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            self.shared.metrics.connections.increment();
            self.talk(stream, peer, watcher).await;
            self.shared.metrics.connections.decrement();
            drop(place);
        });
    }

    async fn talk(&self, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        // Small answers are not held back; what a network card cannot do costs nothing but time.
        let _ = stream.set_nodelay(true);
        let stall = self.shared.limits.stall;
        let Some(tls) = &self.tls else {
            return self
                .answer(Unstalled::new(stream, stall), peer, watcher)
                .await;
        };
        match timeout(self.shared.limits.handshake, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                self.answer(Unstalled::new(stream, stall), peer, watcher)
                    .await;
            }
            Ok(Err(error)) => self.no_handshake(peer, &error.to_string()),
            Err(_) => self.no_handshake(peer, "it took too long"),
        }
    }

    fn no_handshake(&self, peer: SocketAddr, problem: &str) {
        self.shared.metrics.failed_handshakes.increment();
        tracing::debug!(%peer, problem, "no TLS handshake");
    }

    async fn answer<S>(&self, stream: Unstalled<S>, peer: SocketAddr, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let router = self.router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer.ip()));
            router.clone().call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.shared.limits.head)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%peer, %error, "a connection broke off");
        }
    }
}

/// The connections that are open, by address.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<IpAddr, usize>>);

impl Open {
    /// A place among the open connections; free again when dropped.
    fn take(self: &Arc<Self>, peer: IpAddr, most: usize, most_per_peer: usize) -> Option<Place> {
        let peer = counted_as(peer);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let of_peer = open.get(&peer).copied().unwrap_or_default();
        if all >= most || of_peer >= most_per_peer {
            return None;
        }
        open.insert(peer, of_peer.saturating_add(1));
        let open = Arc::clone(self);
        Some(Place { open, peer })
    }
}

struct Place {
    open: Arc<Open>,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.peer)),
        }
    }
}

/// A stream whose writes fail when the other side takes nothing for too long.
struct Unstalled<S> {
    stream: S,
    patience: Duration,
    /// Since a write has been waiting.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Unstalled<S> {
    const fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            waiting: None,
        }
    }

    /// What became of a write, with its time.
    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let end = Instant::now() + self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bounded(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded(context, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn a_reader_who_takes_nothing_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (ours, theirs) = tokio::io::duplex(16);
            let mut stream = Unstalled::new(ours, Duration::from_millis(50));
            stream.write_all(&[1; 16]).await.unwrap();
            let error = stream.write_all(&[1; 1]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            drop(theirs);
        });
    }
}
