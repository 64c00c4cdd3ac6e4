//! Tokens by the OAuth 2.0 client-credentials grant, kept until shortly before they expire.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::{Client, OAuth2, Options, OptionsError, Request, SendError};

/// A token is renewed this long before it expires.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// Longest response of a token server that is read.
const TOKEN_RESPONSE_BYTES_MAX: usize = 1 << 20;

/// Fetches and keeps one token.
pub(super) struct TokenSource {
    options: OAuth2,
    client: Box<Client>,
    token: Mutex<Option<(String, Option<Instant>)>>,
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    #[serde(default)]
    token_type: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl TokenSource {
    pub(super) fn new(options: &OAuth2, user_agent: &str) -> Result<Self, OptionsError> {
        let mut http = Options::plain();
        http.tls = options.tls.clone();
        http.proxy = options.proxy.clone();
        let client = Box::new(Client::new(&http, user_agent)?);
        Ok(Self { options: options.clone(), client, token: Mutex::new(None) })
    }

    /// The value of the `Authorization` header.
    pub(super) async fn authorization(&self, timeout: Duration) -> Result<String, SendError> {
        let mut token = self.token.lock().await;
        if let Some((text, expiry)) = &*token
            && expiry.is_none_or(|expiry| Instant::now() < expiry)
        {
            return Ok(text.clone());
        }
        let (text, expiry) = self.fetch(timeout).await?;
        *token = Some((text.clone(), expiry));
        Ok(text)
    }

    /// Forgets the token: the server did not accept it.
    pub(super) async fn forget(&self) {
        *self.token.lock().await = None;
    }

    async fn fetch(&self, timeout: Duration) -> Result<(String, Option<Instant>), SendError> {
        let failed = |reason: &str| SendError::Token(reason.to_owned());
        let url = Url::parse(&self.options.token_url).map_err(|_| failed("invalid token_url"))?;
        let secret = self.options.client_secret.load().await?;
        let body = Bytes::from(self.form());
        let mut request = Request::post(url, body, timeout, TOKEN_RESPONSE_BYTES_MAX);
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers.insert(CONTENT_TYPE, form_type);
        let encode = |text: &str| -> String {
            url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
        };
        let pair = format!("{}:{}", encode(&self.options.client_id), encode(&secret));
        let basic = format!("Basic {}", BASE64_STANDARD.encode(pair));
        let mut basic = HeaderValue::from_str(&basic).expect("base64 is plain ASCII");
        basic.set_sensitive(true);
        request.headers.insert(AUTHORIZATION, basic);
        let response = Box::pin(self.client.send(request)).await?;
        if !response.status.is_success() {
            return Err(failed(&response.status_text()));
        }
        let token: TokenResponse = serde_json::from_slice(&response.body)
            .map_err(|_| failed("server response missing access_token"))?;
        let scheme = match token.token_type.to_ascii_lowercase().as_str() {
            "" | "bearer" => "Bearer",
            _ => token.token_type.as_str(),
        };
        let expiry = token.expires_in.map(|seconds| {
            let lifetime = Duration::from_secs(seconds.min(86_400 * 365));
            Instant::now() + lifetime.saturating_sub(EXPIRY_MARGIN)
        });
        Ok((format!("{scheme} {}", token.access_token), expiry))
    }

    /// On its own, because the serializer must not live across an await: it is not `Sync`.
    fn form(&self) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.options.scopes.is_empty() {
            form.append_pair("scope", &self.options.scopes.join(" "));
        }
        form.extend_pairs(&self.options.endpoint_params);
        form.finish()
    }
}
