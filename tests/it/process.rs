//! The real binary as a child process, a plain HTTP client and HTTP receivers: what end-to-end
//! tests are made of. Everything stays on the loopback interface and ends with the test.
#![expect(clippy::disallowed_methods, reason = "waits for real processes")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message;
use serde_json::Value;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Calls `probe` until it gives something; panics with `what` when patience ends.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|err| panic!("{err}: {}", self.body))
    }
}

/// One request on its own connection; `None` when nobody answers.
pub fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..split]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut body = answer[split + 4..].to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body)?;
    }
    Some(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        let chunk = rest.get(end + 2..end + 2 + len)?;
        if len == 0 {
            return Some(out);
        }
        out.extend_from_slice(chunk);
        rest = rest.get(end + 4 + len..)?;
    }
}

pub fn get(port: u16, path: &str) -> Answer {
    request(port, "GET", path, &[], b"").unwrap_or_else(|| panic!("no answer to {path}"))
}

pub fn post_form(port: u16, path: &str, pairs: &[(&str, &str)]) -> Answer {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    let kind = ("Content-Type", "application/x-www-form-urlencoded");
    request(port, "POST", path, &[kind], form.finish().as_bytes()).expect("an answer")
}

pub fn post_json(port: u16, path: &str, body: &Value) -> Answer {
    let kind = ("Content-Type", "application/json");
    request(port, "POST", path, &[kind], body.to_string().as_bytes()).expect("an answer")
}

/// Percent-encodes a query parameter.
pub fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The `result` of an instant query now.
pub fn instant(port: u16, query: &str) -> Value {
    let answer = get(port, &format!("/api/v1/query?query={}", encoded(query)));
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    answer.json()["data"]["result"].clone()
}

/// A child that is killed with the test.
pub struct Process(Child);

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|err| panic!("{command:?}: {err}")))
    }

    /// SIGKILL, then wait until it is gone.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_narthex");

/// A Narthex server on a free port, with its own folder.
pub struct Server {
    pub port: u16,
    pub process: Process,
    pub folder: PathBuf,
    arguments: Vec<String>,
}

impl Server {
    /// Writes `config` into `folder` and starts; returns when the server is ready.
    pub fn start(folder: &Path, config: &str, arguments: &[&str]) -> Self {
        std::fs::write(folder.join("narthex.yml"), config).unwrap();
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let port = free_port();
        let process = Self::spawn(folder, port, &arguments);
        let mut server = Self { port, process, folder: folder.to_owned(), arguments };
        server.wait_until_ready();
        server
    }

    fn spawn(folder: &Path, port: u16, arguments: &[String]) -> Process {
        Self::spawn_by(Command::new(BINARY), folder, port, arguments)
    }

    fn spawn_by(mut command: Command, folder: &Path, port: u16, arguments: &[String]) -> Process {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        Process::spawn(
            command
                .arg(format!("--config.file={}", folder.join("narthex.yml").display()))
                .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(log),
        )
    }

    pub fn wait_until_ready(&mut self) {
        wait_for("the server to be ready", || {
            assert!(self.process.is_running(), "the server ended:\n{}", self.log());
            request(self.port, "GET", "/-/ready", &[], b"").filter(|answer| answer.status == 200)
        });
    }

    /// SIGKILL; the data stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts again on the same folder and port; returns how long it took to be ready.
    pub fn start_again(&mut self) -> Duration {
        let begun = Instant::now();
        self.process = Self::spawn(&self.folder, self.port, &self.arguments);
        self.wait_until_ready();
        begun.elapsed()
    }

    /// Starts with a data directory on a file system of its own, of so many bytes, that only the
    /// server sees. `None`: this machine does not let us mount one.
    pub fn start_on_small_disk(folder: &Path, arguments: &[&str], bytes: u64) -> Option<Self> {
        let mut probe = Command::new("unshare");
        probe.args(["-rm", "mount", "-t", "tmpfs", "none"]).arg(folder).stderr(Stdio::null());
        if !probe.status().is_ok_and(|status| status.success()) {
            return None;
        }
        std::fs::write(folder.join("narthex.yml"), "global: {}\n").unwrap();
        std::fs::create_dir(folder.join("data")).unwrap();
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let port = free_port();
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs -o size=\"$1\" none \"$2\" && shift 2 && exec \"$@\"";
        command.args(["-rm", "sh", "-c", script, "sh", &bytes.to_string()]);
        command.arg(folder.join("data")).arg(BINARY);
        let process = Self::spawn_by(command, folder, port, &arguments);
        let mut server = Self { port, process, folder: folder.to_owned(), arguments };
        server.wait_until_ready();
        Some(server)
    }

    /// The data directory as the server sees it.
    pub fn data_as_seen(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.process.id()));
        root.join(self.folder.join("data").strip_prefix("/").unwrap())
    }

    /// The same under strace, whose lines go to `trace`: what is written where and synced when.
    pub fn start_traced(&mut self, trace: &Path) {
        let mut command = Command::new("strace");
        let calls = "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg";
        command.args(["-f", "-D", "-y", "-s", "40", "-e", calls, "-o"]).arg(trace).arg(BINARY);
        self.process = Self::spawn_by(command, &self.folder, self.port, &self.arguments);
        self.wait_until_ready();
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// A request that a receiver got.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub body: Value,
}

/// An HTTP server that answers 200 to everything and remembers what came.
pub struct HttpReceiver {
    pub port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

impl HttpReceiver {
    pub fn start(content_type: &'static str, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let shared = Arc::clone(&received);
        // The thread ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length:");
                std::thread::spawn(move || serve(stream.unwrap(), &head, answer, &shared));
            }
        });
        Self { port, received }
    }

    pub fn all(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// Waits until `count` requests have come.
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        wait_for(&format!("{count} requests"), || Some(self.all()).filter(|all| all.len() >= count))
    }
}

/// Answers requests on one connection until the client closes it.
fn serve(stream: TcpStream, head: &str, answer: &str, received: &Mutex<Vec<Received>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let (mut first, mut len) = (String::new(), 0);
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; len];
        reader.read_exact(&mut body).unwrap();
        let path = first.split(' ').nth(1).unwrap_or("").to_owned();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        received.lock().unwrap().push(Received { path, body });
        if write!(writer, "{head} {}\r\n\r\n{answer}", answer.len()).is_err() {
            return;
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

/// One series to send: labels in any order, samples as (ms, value).
pub struct SeriesToWrite<'a> {
    pub labels: Vec<(&'a str, String)>,
    pub samples: Vec<(i64, f64)>,
}

/// Sends by remote write; `None` when the server did not answer.
pub fn remote_write(port: u16, series: &[SeriesToWrite<'_>]) -> Option<Answer> {
    let series = series.iter().map(|one| TimeSeries {
        labels: one
            .labels
            .iter()
            .map(|(name, value)| Label { name: (*name).to_owned(), value: value.clone() })
            .collect(),
        samples: one
            .samples
            .iter()
            .map(|(timestamp, value)| Sample { timestamp: *timestamp, value: *value })
            .collect(),
    });
    let body = WriteRequest { series: series.collect() }.encode_to_vec();
    let compressed = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    request(port, "POST", "/api/v1/write", &headers, &compressed)
}
