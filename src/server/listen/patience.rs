//! How long a connection may wait for its client: as Go's server does with `ReadTimeout`, for a
//! whole request from its begin, and for the next one. While a request is answered, nothing is
//! waited for, however long that takes; nor does a client that reads slowly lose its answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};
use tower::Service;

use crate::api::Peer;

/// What a connection does, shared by its socket and its requests.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Requests that have not been answered to the end.
    open: usize,
    /// Those whose body has not come to its end.
    reading: usize,
    /// When the present waiting began.
    since: Instant,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { open: 0, reading: 0, since: Instant::now() })))
    }

    /// When the client's time began; nothing while it is our turn.
    fn waiting_since(&self) -> Option<Instant> {
        let state = self.0.lock();
        (state.open == 0 || 0 < state.reading).then_some(state.since)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        change(&mut state);
        state.since = Instant::now();
    }

    /// The client has taken some of its answer.
    pub(super) fn touch(&self) {
        self.change(|_| ());
    }
}

/// Ends waits that are too long. Polled by the socket when it has nothing to read.
pub(super) struct Patience {
    activity: Activity,
    limit: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl Patience {
    pub(super) fn new(activity: Activity, limit: Duration) -> Self {
        Self { activity, limit, alarm: Box::pin(tokio::time::sleep(limit)) }
    }

    /// Ready when the client's time is over.
    pub(super) fn poll_over(&mut self, ctx: &mut Context<'_>) -> Poll<()> {
        while self.alarm.as_mut().poll(ctx).is_ready() {
            let now = Instant::now();
            let end = match self.activity.waiting_since() {
                Some(since) => since + self.limit,
                None => now + self.limit,
            };
            if end <= now {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(end);
        }
        Poll::Pending
    }
}

/// Serves the requests of one connection, each counted as long as its body is read and its answer
/// is written.
#[derive(Clone)]
pub(super) struct Followed {
    pub(super) router: Router,
    pub(super) peer: Peer,
    pub(super) activity: Activity,
}

impl Service<Request> for Followed {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, ctx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.router, ctx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let open = Counted::new(&self.activity, |state| &mut state.open);
        // What is complete already is waited for no longer.
        let request = if request.body().is_end_stream() {
            request
        } else {
            let reading = Counted::new(&self.activity, |state| &mut state.reading);
            request.map(|body| Body::new(Counting { body, count: Some(reading) }))
        };
        let answering = self.router.call(request);
        Box::pin(async move {
            let response = answering.await?;
            Ok(response.map(|body| Body::new(Counting { body, count: Some(open) })))
        })
    }
}

/// One of the state's numbers, higher by one until this is dropped.
struct Counted {
    activity: Activity,
    number: fn(&mut State) -> &mut usize,
}

impl Counted {
    fn new(activity: &Activity, number: fn(&mut State) -> &mut usize) -> Self {
        activity.change(|state| *number(state) += 1);
        Self { activity: activity.clone(), number }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.activity.change(|state| *(self.number)(state) -= 1);
    }
}

/// A body that is counted until it has ended.
struct Counting {
    body: Body,
    count: Option<Counted>,
}

impl HttpBody for Counting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(ctx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
            self.count = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::watch;

    use super::super::Listener;
    use super::*;

    /// What comes back for these bytes until the connection ends.
    async fn answer(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is reset has ended, too.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn connections_wait_for_answers_but_not_for_clients() {
        let slow = async || {
            tokio::time::sleep(Duration::from_hours(1)).await;
            "late"
        };
        let router = Router::new().route("/", get(slow).post(async |body: String| body));
        let limit = Duration::from_mins(5);
        let listener = Listener::bind("127.0.0.1:0", 1, limit).await.unwrap();
        let address = listener.address();
        let (stop, stopping) = watch::channel(false);
        let served = tokio::spawn(listener.serve(router, stopping));
        // There is one place: each must be left before the next one is heard.
        for unfinished in [
            "",
            "GET / HT",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let text = answer(address, unfinished).await;
            assert!(!text.contains(" 200 "), "{unfinished}: {text}");
        }
        let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert!(answer(address, request).await.ends_with("late"));
        let echoed = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        assert!(answer(address, echoed).await.ends_with("abc"), "left when it asks no more");
        stop.send_replace(true);
        served.await.unwrap();
    }
}
