//! Sending one request: credentials, redirects, time limit, bounded body.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, LOCATION, PROXY_AUTHORIZATION,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use url::Url;

use super::oauth2::TokenSource;
use super::tls::{self, Material};
use super::{Options, OptionsError, ProxyOptions, Request, Response, Secret, SendError};

/// As in Go.
const REDIRECTS_MAX: usize = 10;
/// How long an idle connection is kept; longer than most scrape intervals.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// Idle connections kept to one host.
const IDLE_PER_HOST_MAX: usize = 16;
/// A body buffer starts no larger than this, whatever `Content-Length` promises.
const BODY_CAPACITY_MAX: usize = 1 << 20;

/// Sends requests by one set of options. Keeps connections open; share it.
pub struct Client {
    options: Options,
    user_agent: HeaderValue,
    /// Names of [`Options::headers`], checked.
    header_names: Vec<HeaderName>,
    tokens: Option<TokenSource>,
    /// The connections, with the TLS material that they were made from.
    current: Mutex<Option<(Arc<Material>, reqwest::Client)>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Client {
    /// A client. Files are not read before the first request.
    pub fn new(options: &Options, user_agent: &str) -> Result<Self, OptionsError> {
        let kinds = [
            options.basic_auth.is_some(),
            options.authorization.is_some(),
            options.oauth2.is_some(),
        ];
        if kinds.into_iter().filter(|is_set| *is_set).count() > 1 {
            return Err(OptionsError::Credentials);
        }
        if let Some(Secret::Inline(url)) = &options.proxy.url {
            Url::parse(url).map_err(|_| OptionsError::ProxyUrl)?;
        }
        let header_names = options.headers.iter().map(|(name, _)| {
            HeaderName::try_from(name.as_str()).map_err(|_| OptionsError::Header(name.clone()))
        });
        let tokens = match &options.oauth2 {
            Some(oauth2) => Some(TokenSource::new(oauth2, user_agent)?),
            None => None,
        };
        Ok(Self {
            user_agent: HeaderValue::from_str(user_agent)
                .map_err(|_| OptionsError::Header("User-Agent".to_owned()))?,
            header_names: header_names.collect::<Result<_, _>>()?,
            options: options.clone(),
            tokens,
            current: Mutex::new(None),
        })
    }

    /// The options it was made from.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Sends a request and reads the response to its end, all within the request's timeout.
    pub async fn send(&self, request: Request) -> Result<Response, SendError> {
        match tokio::time::timeout(request.timeout, self.send_untimed(request)).await {
            Ok(result) => result,
            Err(_) => Err(SendError::Timeout),
        }
    }

    async fn send_untimed(&self, mut request: Request) -> Result<Response, SendError> {
        let client = self.connections().await?;
        let origin = request.url.clone();
        let secret_headers = self.secret_headers(&request).await?;
        for _ in 0..=REDIRECTS_MAX {
            // Credentials go to the host they are meant for, and to no other.
            let trusted = same_host(&origin, &request.url);
            let response = self.send_once(&client, &request, trusted, &secret_headers).await?;
            if response.status() == StatusCode::UNAUTHORIZED
                && let Some(tokens) = &self.tokens
            {
                tokens.forget().await;
            }
            let target = if self.options.follow_redirects { redirect(&response) } else { None };
            let Some(target) = target else { return read(response, &request).await };
            follow(&mut request, response.status(), &target)?;
            if !same_host(&origin, &request.url) {
                for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                    request.headers.remove(name);
                }
            }
        }
        Err(SendError::Redirect("stopped after 10 redirects"))
    }

    async fn send_once(
        &self,
        client: &reqwest::Client,
        request: &Request,
        trusted: bool,
        secret_headers: &HeaderMap,
    ) -> Result<reqwest::Response, SendError> {
        let mut headers = request.headers.clone();
        headers.entry(http::header::USER_AGENT).or_insert_with(|| self.user_agent.clone());
        if trusted {
            for name in secret_headers.keys() {
                headers.remove(name);
            }
            for (name, value) in secret_headers {
                headers.append(name, value.clone());
            }
        }
        let mut builder = client.request(request.method.clone(), request.url.clone());
        builder = builder.headers(headers);
        if !request.body.is_empty() || request.method == Method::POST {
            builder = builder.body(request.body.clone());
        }
        builder.send().await.map_err(|err| transport_error(err, &request.url))
    }

    /// Credentials and configured headers.
    async fn secret_headers(&self, request: &Request) -> Result<HeaderMap, SendError> {
        let mut headers = HeaderMap::new();
        for ((_, values), name) in self.options.headers.iter().zip(&self.header_names) {
            for value in values {
                headers.append(name, sensitive(name.as_str(), &value.load().await?)?);
            }
        }
        let authorization = if let Some(auth) = &self.options.basic_auth {
            let password = match &auth.password {
                Some(password) => password.load().await?,
                None => String::new(),
            };
            let pair = format!("{}:{password}", auth.username.load().await?);
            Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
        } else if let Some(auth) = &self.options.authorization {
            let credentials = match &auth.credentials {
                Some(credentials) => credentials.load().await?,
                None => String::new(),
            };
            Some(format!("{} {credentials}", auth.scheme).trim().to_owned())
        } else if let Some(tokens) = &self.tokens {
            Some(tokens.authorization(request.timeout).await?)
        } else {
            None
        };
        // A header that the caller or `http_headers` set wins, as in Prometheus.
        let is_set = |headers: &HeaderMap| headers.contains_key(AUTHORIZATION);
        if let Some(text) = authorization
            && !is_set(&headers)
            && !is_set(&request.headers)
        {
            headers.insert(AUTHORIZATION, sensitive("Authorization", &text)?);
        }
        Ok(headers)
    }

    /// The open connections; made anew when a certificate file has changed.
    async fn connections(&self) -> Result<reqwest::Client, SendError> {
        let reread = tls::has_files(&self.options.tls);
        if !reread && let Some((_, client)) = &*self.current.lock() {
            return Ok(client.clone());
        }
        let material = Material::load(&self.options.tls).await?;
        if let Some((known, client)) = &*self.current.lock()
            && **known == material
        {
            return Ok(client.clone());
        }
        let proxy = match &self.options.proxy.url {
            Some(url) => Some(url.load().await?),
            None => None,
        };
        let connect_headers = connect_headers(&self.options.proxy).await?;
        let config = tls::config(&self.options.tls, &material, self.options.enable_http2)?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX);
        if !self.options.enable_http2 {
            builder = builder.http1_only();
        }
        builder = match proxy {
            Some(url) => {
                let invalid = |_| SendError::Transport("invalid proxy_url".to_owned());
                let no_proxy = reqwest::NoProxy::from_string(&self.options.proxy.no_proxy);
                let proxy = reqwest::Proxy::all(url).map_err(invalid)?.no_proxy(no_proxy);
                builder.proxy(proxy.headers(connect_headers))
            }
            None if self.options.proxy.from_environment => builder,
            None => builder.no_proxy(),
        };
        let client = builder.build().map_err(|err| SendError::Tls(causes(&err)))?;
        *self.current.lock() = Some((Arc::new(material), client.clone()));
        Ok(client)
    }
}

async fn connect_headers(options: &ProxyOptions) -> Result<HeaderMap, SendError> {
    let mut headers = HeaderMap::new();
    for (name, values) in &options.connect_headers {
        let parsed = HeaderName::try_from(name.as_str());
        let parsed = parsed.map_err(|_| SendError::HeaderValue(name.clone()))?;
        for value in values {
            headers.append(&parsed, sensitive(name, &value.load().await?)?);
        }
    }
    Ok(headers)
}

fn sensitive(name: &str, value: &str) -> Result<HeaderValue, SendError> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| SendError::HeaderValue(name.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn same_host(one: &Url, other: &Url) -> bool {
    let key = |url: &Url| (url.host_str().map(str::to_owned), url.port_or_known_default());
    // From https to http would show the secret to everybody on the way.
    key(one) == key(other) && !(one.scheme() == "https" && other.scheme() == "http")
}

/// Where a response redirects to, when it does.
fn redirect(response: &reqwest::Response) -> Option<String> {
    let status = response.status().as_u16();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    Some(response.headers().get(LOCATION)?.to_str().ok()?.to_owned())
}

/// Turns the request into the one that the redirect asks for.
fn follow(request: &mut Request, status: StatusCode, target: &str) -> Result<(), SendError> {
    let invalid = SendError::Redirect("invalid Location header of a redirect");
    let url = request.url.join(target).map_err(|_| invalid)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(SendError::Redirect("redirect to an unsupported protocol scheme"));
    }
    request.url = url;
    let keeps_method = matches!(status.as_u16(), 307 | 308)
        || matches!(request.method, Method::GET | Method::HEAD);
    if !keeps_method {
        request.method = Method::GET;
        request.body = Bytes::new();
        request.headers.remove(CONTENT_TYPE);
        request.headers.remove(CONTENT_LENGTH);
    }
    Ok(())
}

async fn read(mut response: reqwest::Response, request: &Request) -> Result<Response, SendError> {
    let (status, bytes_max) = (response.status(), request.response_bytes_max);
    let headers = std::mem::take(response.headers_mut());
    let promised = response.content_length().unwrap_or(0).min(BODY_CAPACITY_MAX as u64);
    let mut body = BytesMut::with_capacity(promised as usize);
    while let Some(chunk) =
        response.chunk().await.map_err(|err| transport_error(err, &request.url))?
    {
        if body.len() + chunk.len() > bytes_max {
            return Err(SendError::BodyTooLong(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Response { status, headers, body: body.freeze() })
}

/// The innermost causes, in the words of Go where users know them.
fn transport_error(err: reqwest::Error, url: &Url) -> SendError {
    if err.is_timeout() {
        return SendError::Timeout;
    }
    let host = url.host_str().unwrap_or("");
    let port = url.port_or_known_default().unwrap_or(0);
    let is_connect = err.is_connect();
    let mut source = err.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
            && is_connect
        {
            let text = format!("dial tcp {host}:{port}: connect: connection refused");
            return SendError::Transport(text);
        }
        source = cause.source();
    }
    let text = causes(&err.without_url());
    SendError::Transport(if is_connect { format!("dial tcp {host}:{port}: {text}") } else { text })
}

/// What lies behind an error, outermost first; the error's own text when nothing does.
fn causes(err: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut source = err.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        source = cause.source();
    }
    if parts.is_empty() { err.to_string() } else { parts.join(": ") }
}
