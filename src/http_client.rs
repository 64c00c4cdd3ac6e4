//! The HTTP client behind scrapes, discovery, receivers and remote write: credentials, TLS,
//! proxies and redirects as Prometheus' `http_config` describes them.
//!
//! Secrets kept in files are read again for each request, so that they rotate without a reload.
//! Credentials and configured headers are never sent to another host than the one asked for.
//! No error and no `Debug` output contains a secret or the URL (which may hold a token).

mod oauth2;
mod send;
mod tls;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use url::Url;

pub use send::Client;

/// A file with a secret is at most this long; the largest are bundles of certificates.
const SECRET_FILE_BYTES_MAX: u64 = 4 << 20;

/// Something that must not be shown, or the file that holds it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    /// The secret itself.
    Inline(String),
    /// A file, read on each use.
    File(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("<secret>"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

impl Secret {
    /// The text; from a file without surrounding white space.
    pub async fn load(&self) -> Result<String, SendError> {
        match self {
            Self::Inline(text) => Ok(text.clone()),
            Self::File(path) => {
                let bytes = read_file(path).await?;
                let text = String::from_utf8(bytes).map_err(|_| SendError::File {
                    path: path.clone(),
                    source: std::io::ErrorKind::InvalidData.into(),
                })?;
                Ok(text.trim().to_owned())
            }
        }
    }
}

async fn read_file(path: &Path) -> Result<Vec<u8>, SendError> {
    use tokio::io::AsyncReadExt as _;
    let failed = |source| SendError::File { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(SECRET_FILE_BYTES_MAX).read_to_end(&mut bytes).await.map_err(failed)?;
    Ok(bytes)
}

/// `basic_auth`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BasicAuth {
    /// Name of the user.
    pub username: Secret,
    /// Password; `None` sends an empty one.
    pub password: Option<Secret>,
}

/// `authorization`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authorization {
    /// Mostly `Bearer`.
    pub scheme: String,
    /// What follows the scheme; `None` sends the scheme alone.
    pub credentials: Option<Secret>,
}

/// `oauth2` with the grant type `client_credentials`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OAuth2 {
    /// Identifier of this client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// Requested scopes.
    pub scopes: Vec<String>,
    /// Where tokens are fetched.
    pub token_url: String,
    /// Further parameters of the token request.
    pub endpoint_params: Vec<(String, String)>,
    /// TLS towards the token server.
    pub tls: TlsOptions,
    /// Proxy towards the token server.
    pub proxy: ProxyOptions,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.0; no longer spoken: as a minimum it means 1.2, as a maximum nothing is left.
    Tls10,
    /// TLS 1.1; as 1.0.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// `tls_config`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsOptions {
    /// Certificates (PEM) that may sign the server's; `None`: those of the system.
    pub ca: Option<Secret>,
    /// Our certificate chain (PEM).
    pub cert: Option<Secret>,
    /// Its key (PEM).
    pub key: Option<Secret>,
    /// Name that the server's certificate must be valid for; empty: the host of the URL.
    pub server_name: String,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// Oldest version; `None`: 1.2.
    pub min_version: Option<TlsVersion>,
    /// Newest version; `None`: 1.3.
    pub max_version: Option<TlsVersion>,
}

impl TlsOptions {
    /// System roots, no client certificate.
    pub fn system() -> Self {
        Self {
            ca: None,
            cert: None,
            key: None,
            server_name: String::new(),
            insecure_skip_verify: false,
            min_version: None,
            max_version: None,
        }
    }
}

/// `proxy_url`, `no_proxy`, `proxy_from_environment`, `proxy_connect_header`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyOptions {
    /// The proxy (`http`, `https` or `socks5`); may hold a password.
    pub url: Option<Secret>,
    /// Hosts, domains and networks that are reached directly, separated by commas.
    pub no_proxy: String,
    /// Use `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
    pub from_environment: bool,
    /// Headers of the `CONNECT` request.
    pub connect_headers: Vec<(String, Vec<Secret>)>,
}

impl ProxyOptions {
    /// No proxy at all.
    pub fn none() -> Self {
        Self {
            url: None,
            no_proxy: String::new(),
            from_environment: false,
            connect_headers: Vec::new(),
        }
    }
}

/// `http_config`: how to reach a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// User and password.
    pub basic_auth: Option<BasicAuth>,
    /// `Authorization` header of another scheme.
    pub authorization: Option<Authorization>,
    /// Tokens of an OAuth 2.0 server.
    pub oauth2: Option<OAuth2>,
    /// TLS.
    pub tls: TlsOptions,
    /// Proxy.
    pub proxy: ProxyOptions,
    /// Whether redirects are followed.
    pub follow_redirects: bool,
    /// Whether HTTP/2 may be negotiated.
    pub enable_http2: bool,
    /// `http_headers`: added to each request; a header may have several values.
    pub headers: Vec<(String, Vec<Secret>)>,
}

impl Options {
    /// No credentials, system roots, redirects and HTTP/2 as Prometheus does by default.
    pub fn plain() -> Self {
        Self {
            basic_auth: None,
            authorization: None,
            oauth2: None,
            tls: TlsOptions::system(),
            proxy: ProxyOptions::none(),
            follow_redirects: true,
            enable_http2: true,
            headers: Vec::new(),
        }
    }
}

/// A request; credentials and configured headers are added when it is sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Headers.
    pub headers: HeaderMap,
    /// Body; empty for none.
    pub body: Bytes,
    /// From the first byte sent to the last received, redirects included.
    pub timeout: Duration,
    /// A longer response body is an error.
    pub response_bytes_max: usize,
}

impl Request {
    /// A `GET` without headers of its own.
    pub fn get(url: Url, timeout: Duration, response_bytes_max: usize) -> Self {
        let (method, headers, body) = (Method::GET, HeaderMap::new(), Bytes::new());
        Self { method, url, headers, body, timeout, response_bytes_max }
    }

    /// A `POST`.
    pub fn post(url: Url, body: Bytes, timeout: Duration, response_bytes_max: usize) -> Self {
        let (method, headers) = (Method::POST, HeaderMap::new());
        Self { method, url, headers, body, timeout, response_bytes_max }
    }
}

/// A response, read to its end. Not decompressed.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status; any is a response.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Response {
    /// As Go prints a status: `404 Not Found`.
    pub fn status_text(&self) -> String {
        let reason = self.status.canonical_reason().unwrap_or("");
        format!("{} {reason}", self.status.as_u16()).trim_end().to_owned()
    }

    /// A header's value as text; empty when it is missing or no text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

/// Why a client cannot be made from its options.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// More than one kind of credentials.
    #[error("at most one of basic_auth, oauth2 & authorization must be configured")]
    Credentials,
    /// The proxy's address cannot be read.
    #[error("invalid proxy_url")]
    ProxyUrl,
    /// A header has a name or value that HTTP does not allow.
    #[error("invalid header name {0:?}")]
    Header(String),
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A file with a secret or certificate cannot be read.
    #[error("unable to read file {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The TLS settings do not work.
    #[error("{0}")]
    Tls(String),
    /// A secret cannot be sent in a header.
    #[error("value of header {0} contains characters that HTTP does not allow")]
    HeaderValue(String),
    /// The token server did not give a token.
    #[error("oauth2: cannot fetch token: {0}")]
    Token(String),
    /// Time is up.
    #[error("context deadline exceeded")]
    Timeout,
    /// The response is longer than allowed.
    #[error("response body is longer than {0} bytes")]
    BodyTooLong(usize),
    /// Too many redirects, or one that leads nowhere.
    #[error("{0}")]
    Redirect(&'static str),
    /// No connection, or it broke.
    #[error("{0}")]
    Transport(String),
}

impl SendError {
    /// Whether trying again later can help by itself.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Timeout | Self::Transport(_))
    }
}
