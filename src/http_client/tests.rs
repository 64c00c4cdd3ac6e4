//! Tests of the client against servers on the loopback interface.

use axum::Router;
use axum::extract::Request as Incoming;
use axum::http::header::{AUTHORIZATION, LOCATION};
use axum::routing::any;

use super::*;
use crate::base::disk::{Disk as _, OsDisk};

/// A server that answers with what it got; `/to?<url>` redirects, `/token` hands out a token.
async fn serve() -> String {
    let echo = |request: Incoming| async move {
        let (parts, body) = request.into_parts();
        let header = |name: &str| {
            let values = parts.headers.get_all(name).iter();
            values.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join("+")
        };
        let body = axum::body::to_bytes(body, 1000).await.unwrap();
        format!(
            "{} auth={} x={} agent={} body={}",
            parts.method,
            header("authorization"),
            header("x-key"),
            header("user-agent"),
            String::from_utf8_lossy(&body)
        )
    };
    let redirect = |request: Incoming| async move {
        let to = request.uri().query().unwrap_or_default().to_owned();
        (StatusCode::FOUND, [(LOCATION, to)])
    };
    let token = |request: Incoming| async move {
        let basic = request.headers().get(AUTHORIZATION).unwrap().to_str().unwrap().to_owned();
        // id:s%2Fecret
        assert_eq!(basic, "Basic aWQ6cyUyRmVjcmV0");
        r#"{"access_token": "tok", "token_type": "bearer", "expires_in": 3600}"#
    };
    let app = Router::new()
        .route("/echo", any(echo))
        .route("/to", any(redirect))
        .route("/token", any(token));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

async fn get(options: &Options, url: &str) -> String {
    let client = Client::new(options, "agent/1").unwrap();
    let request = Request::get(Url::parse(url).unwrap(), Duration::from_secs(5), 200);
    match client.send(request).await {
        Ok(response) => String::from_utf8_lossy(&response.body).into_owned(),
        Err(err) => format!("error: {err}"),
    }
}

fn inline(text: &str) -> Secret {
    Secret::Inline(text.to_owned())
}

fn with_secrets() -> Options {
    let mut options = Options::plain();
    let (username, password) = (inline("u"), Some(inline("p")));
    options.basic_auth = Some(BasicAuth { username, password });
    options.headers = vec![("X-Key".to_owned(), vec![inline("k1"), inline("k2")])];
    options
}

#[tokio::test]
async fn credentials_are_sent_but_not_to_another_host() {
    let (one, two) = (serve().await, serve().await);
    let options = with_secrets();
    let full = "GET auth=Basic dTpw x=k1+k2 agent=agent/1 body=";
    assert_eq!(get(&options, &format!("{one}/echo")).await, full);
    assert_eq!(get(&options, &format!("{one}/to?/echo")).await, full);
    let bare = "GET auth= x= agent=agent/1 body=";
    assert_eq!(get(&options, &format!("{one}/to?{two}/echo")).await, bare);
    // There and back: our own host may have them again.
    assert_eq!(get(&options, &format!("{one}/to?{two}/to?{one}/echo")).await, full);
    let endless = format!("{one}/to?{one}/to");
    assert_eq!(get(&options, &endless).await, "error: stopped after 10 redirects");
}

#[tokio::test]
async fn secrets_in_files_are_read_on_each_use() {
    let server = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let mut options = Options::plain();
    options.authorization = Some(Authorization {
        scheme: "Bearer".to_owned(),
        credentials: Some(Secret::File(path.clone())),
    });
    let url = format!("{server}/echo");
    assert!(get(&options, &url).await.starts_with("error: unable to read file "));
    OsDisk.replace(&path, b" one\n").unwrap();
    assert!(get(&options, &url).await.contains("auth=Bearer one "));
    OsDisk.replace(&path, b"two").unwrap();
    assert!(get(&options, &url).await.contains("auth=Bearer two "));
    OsDisk.replace(&path, b"t\nwo").unwrap();
    let error = get(&options, &url).await;
    assert_eq!(
        error,
        "error: value of header Authorization contains characters that HTTP does not allow"
    );
}

#[tokio::test]
async fn tokens_are_fetched_from_the_token_server() {
    let server = serve().await;
    let mut options = Options::plain();
    options.oauth2 = Some(OAuth2 {
        client_id: "id".to_owned(),
        client_secret: inline("s/ecret"),
        scopes: vec!["a".to_owned()],
        token_url: format!("{server}/token"),
        endpoint_params: Vec::new(),
        tls: TlsOptions::system(),
        proxy: ProxyOptions::none(),
    });
    assert!(get(&options, &format!("{server}/echo")).await.contains("auth=Bearer tok "));
}

#[tokio::test]
async fn failures_say_why_without_the_url() {
    let server = serve().await;
    let options = Options::plain();
    assert_eq!(
        get(&options, "http://127.0.0.1:1/secret").await,
        "error: dial tcp 127.0.0.1:1: connect: connection refused"
    );
    let client = Client::new(&options, "agent/1").unwrap();
    let url = Url::parse(&format!("{server}/echo")).unwrap();
    let request = Request::post(url, Bytes::from(vec![b'x'; 500]), Duration::from_secs(5), 100);
    let error = client.send(request).await.unwrap_err();
    assert_eq!(error.to_string(), "response body is longer than 100 bytes");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let silent = client.send(Request::get(url, Duration::from_millis(20), 100)).await;
    assert_eq!(silent.unwrap_err().to_string(), "context deadline exceeded");
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    let mut options = with_secrets();
    options.authorization = Some(Authorization { scheme: "Bearer".into(), credentials: None });
    assert!(matches!(Client::new(&options, "a"), Err(OptionsError::Credentials)));
    let mut options = Options::plain();
    options.proxy.url = Some(inline("::"));
    assert!(matches!(Client::new(&options, "a"), Err(OptionsError::ProxyUrl)));
    let mut options = Options::plain();
    options.tls.ca = Some(inline("no certificate"));
    let error = get(&options, "https://127.0.0.1:1/").await;
    assert_eq!(error, "error: unable to use specified CA cert: no PEM certificate found");
}

#[test]
fn secrets_do_not_show() {
    let shown = format!("{:?}", Client::new(&with_secrets(), "agent/1").unwrap());
    assert!(
        shown.contains("<secret>") && !shown.contains("\"u\"") && !shown.contains("k1"),
        "{shown}"
    );
}
