//! Listening sockets with a cap on open connections, which are closed when their client keeps a
//! request from coming to its end.

mod patience;
mod request_line;

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::service_fn;
use tracing::error;

use crate::api::Peer;
use patience::{Activity, Followed, Patience};
use request_line::RequestLines;

/// Pause after a failed accept (mostly: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket.
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    permits: Arc<Semaphore>,
    read_timeout: Duration,
}

impl Listener {
    /// Binds to `host:port`; an empty host means every address.
    pub(super) async fn bind(
        address: &str,
        connections_max: usize,
        read_timeout: Duration,
    ) -> anyhow::Result<Self> {
        let full =
            if address.starts_with(':') { format!("[::]{address}") } else { address.to_owned() };
        let named = || format!("listen on {address}");
        let candidates: Vec<SocketAddr> = lookup_host(&full).await.with_context(named)?.collect();
        let socket = TcpListener::bind(&candidates[..]).await.with_context(named)?;
        let address = socket.local_addr().with_context(named)?;
        let permits = Arc::new(Semaphore::new(connections_max));
        Ok(Self { socket, address, permits, read_timeout })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stopping` turns true and the running requests have ended.
    pub(super) async fn serve(self, router: Router, mut stopping: watch::Receiver<bool>) {
        let stop = async move {
            // A dropped sender means the same.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let service = service_fn(move |stream: IncomingStream<'_, Self>| {
            let peer = Peer(*stream.remote_addr());
            let activity = stream.io().activity.clone();
            ready(Ok::<_, Infallible>(Followed { router: router.clone(), peer, activity }))
        });
        if let Err(err) = axum::serve(self, service).with_graceful_shutdown(stop).await {
            error!(error = %err, "Serving ended.");
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    // Answers are written whole; waiting to fill a packet only delays them.
                    let _ = stream.set_nodelay(true);
                    return (Connection::new(stream, permit, self.read_timeout), address);
                }
                Err(err) => {
                    error!(error = %err, "Accepting a connection failed.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connection that frees its place when it is dropped.
pub(super) struct Connection {
    stream: TcpStream,
    lines: RequestLines,
    /// What was read and found no room: a few bytes, when targets grew.
    pending: Vec<u8>,
    activity: Activity,
    patience: Patience,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit, read_timeout: Duration) -> Self {
        let (lines, activity) = (RequestLines::default(), Activity::new());
        let patience = Patience::new(activity.clone(), read_timeout);
        Self { stream, lines, pending: Vec::new(), activity, patience, _permit: permit }
    }

    fn note_written(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.activity.touch();
        }
    }
}

/// Moves as much as there is room for.
fn fill(buffer: &mut ReadBuf<'_>, bytes: &mut Vec<u8>) {
    let taken = bytes.len().min(buffer.remaining());
    buffer.put_slice(&bytes[..taken]);
    bytes.drain(..taken);
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.pending.is_empty() {
            fill(buffer, &mut self.pending);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(ctx, buffer);
        if read.is_pending() && self.patience.poll_over(ctx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if matches!(read, Poll::Ready(Ok(())))
            && let Some(mut changed) = self.lines.scan(&buffer.filled()[before..])
        {
            buffer.set_filled(before);
            fill(buffer, &mut changed);
            self.pending = changed;
        }
        if self.lines.is_http2() {
            // Spoken without TLS it would pass the cap: many requests on one connection.
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(ctx, bytes);
        self.note_written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(ctx, slices);
        self.note_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(ctx)
    }
}
