//! `http_config`: credentials, TLS and proxy of everything that speaks HTTP, and its checks.
//!
//! Some sections have these fields nested, others among their own; `with_http_fields!` spells them
//! out for the latter, because serde cannot flatten strictly.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use super::yaml::{Secret, is_default};
use crate::http_client::{self, TlsVersion};
use crate::model::labels::quote;

/// An address that may hold a password, which is not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The address with all that is in it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// With the password replaced, as Go does.
    fn redacted(&self) -> String {
        match url::Url::parse(&self.0) {
            Ok(mut url) if url.password().is_some() => {
                let _ = url.set_password(Some("xxxxx"));
                url.to_string()
            }
            Ok(_) => self.0.clone(),
            Err(_) => "<invalid>".to_owned(),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

/// `basic_auth`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct BasicAuth {
    #[serde(skip_serializing_if = "is_default")]
    pub username: String,
    #[serde(skip_serializing_if = "is_default")]
    pub username_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub password: Secret,
    #[serde(skip_serializing_if = "is_default")]
    pub password_file: Option<PathBuf>,
}

/// `authorization`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Authorization {
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub scheme: String,
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub credentials: Secret,
    #[serde(skip_serializing_if = "is_default")]
    pub credentials_file: Option<PathBuf>,
}

/// `oauth2` with client credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct OAuth2 {
    pub client_id: String,
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub client_secret: Secret,
    #[serde(skip_serializing_if = "is_default")]
    pub client_secret_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "is_default")]
    pub grant_type: String,
    #[serde(skip_serializing_if = "is_default")]
    pub scopes: Vec<String>,
    pub token_url: String,
    #[serde(skip_serializing_if = "is_default")]
    pub endpoint_params: BTreeMap<String, Secret>,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_config: TlsConfig,
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_url: Option<SecretUrl>,
    #[serde(skip_serializing_if = "is_default")]
    pub no_proxy: String,
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_from_environment: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_connect_header: BTreeMap<String, Vec<Secret>>,
}

/// `tls_config`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct TlsConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub ca: String,
    #[serde(skip_serializing_if = "is_default")]
    pub cert: String,
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub key: Secret,
    #[serde(skip_serializing_if = "is_default")]
    pub ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "is_default")]
    pub cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "is_default")]
    pub key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "is_default")]
    pub server_name: String,
    pub insecure_skip_verify: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub min_version: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub max_version: Option<String>,
}

/// One header of `http_headers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Header {
    #[serde(skip_serializing_if = "is_default")]
    pub values: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<Secret>,
    #[serde(skip_serializing_if = "is_default")]
    pub files: Vec<PathBuf>,
}

/// Makes a section's struct that has the fields of `http_config` among its own, and its method
/// `http_config()` that gathers them.
macro_rules! with_http_fields {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[expect(missing_docs, reason = "fields bear the names of the configuration")]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub basic_auth: Option<$crate::config::http::BasicAuth>,
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub authorization: Option<$crate::config::http::Authorization>,
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub oauth2: Option<$crate::config::http::OAuth2>,
            #[serde(skip_serializing_if = "crate::config::yaml::Secret::is_empty")]
            pub bearer_token: $crate::config::yaml::Secret,
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub bearer_token_file: Option<std::path::PathBuf>,
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub tls_config: $crate::config::http::TlsConfig,
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub proxy_url: Option<$crate::config::http::SecretUrl>,
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub no_proxy: String,
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub proxy_from_environment: bool,
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub proxy_connect_header:
                std::collections::BTreeMap<String, Vec<$crate::config::yaml::Secret>>,
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub follow_redirects: Option<bool>,
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub enable_http2: Option<bool>,
            #[serde(skip_serializing_if = "crate::config::yaml::is_default")]
            pub http_headers: std::collections::BTreeMap<String, $crate::config::http::Header>,
        }
    };
}
pub(super) use with_http_fields;

/// The method that goes with `with_http_fields!`.
macro_rules! impl_http_config {
    ($name:ident) => {
        impl $name {
            /// The fields of `http_config`.
            pub fn http_config(&self) -> $crate::config::http::HttpConfig {
                $crate::config::http::HttpConfig {
                    basic_auth: self.basic_auth.clone(),
                    authorization: self.authorization.clone(),
                    oauth2: self.oauth2.clone(),
                    bearer_token: self.bearer_token.clone(),
                    bearer_token_file: self.bearer_token_file.clone(),
                    tls_config: self.tls_config.clone(),
                    proxy_url: self.proxy_url.clone(),
                    no_proxy: self.no_proxy.clone(),
                    proxy_from_environment: self.proxy_from_environment,
                    proxy_connect_header: self.proxy_connect_header.clone(),
                    follow_redirects: self.follow_redirects,
                    enable_http2: self.enable_http2,
                    http_headers: self.http_headers.clone(),
                }
            }
        }
    };
}
pub(super) use impl_http_config;

with_http_fields! {
    /// `http_config`
    #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct HttpConfig {}
}

/// Headers that the client sets itself.
const RESERVED_HEADERS: [&str; 14] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
];

/// A file's path as seen from the folder of the file that names it.
pub fn resolve(base: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { PathBuf::new() } else { base.join(path) }
}

fn secret(base: &Path, text: &str, file: Option<&PathBuf>) -> Option<http_client::Secret> {
    match file {
        Some(file) => Some(http_client::Secret::File(resolve(base, file))),
        None if text.is_empty() => None,
        None => Some(http_client::Secret::Inline(text.to_owned())),
    }
}

/// An error when more than one of them is set.
fn at_most_one<const N: usize>(set: [bool; N], names: &str) -> Result<(), String> {
    if set.into_iter().filter(|is_set| *is_set).count() > 1 {
        return Err(format!("at most one of {names} must be configured"));
    }
    Ok(())
}

impl BasicAuth {
    fn to_options(&self, base: &Path) -> Result<http_client::BasicAuth, String> {
        let (name, password) = (!self.username.is_empty(), !self.password.is_empty());
        at_most_one(
            [name, self.username_file.is_some()],
            "basic_auth username, username_file & username_ref",
        )?;
        at_most_one(
            [password, self.password_file.is_some()],
            "basic_auth password, password_file & password_ref",
        )?;
        let username = secret(base, &self.username, self.username_file.as_ref());
        Ok(http_client::BasicAuth {
            username: username.unwrap_or_else(|| http_client::Secret::Inline(String::new())),
            password: secret(base, self.password.expose(), self.password_file.as_ref()),
        })
    }
}

impl Authorization {
    fn to_options(&self, base: &Path) -> Result<http_client::Authorization, String> {
        at_most_one(
            [!self.credentials.is_empty(), self.credentials_file.is_some()],
            "authorization credentials & credentials_file",
        )?;
        let scheme = self.scheme.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            let text = r#"authorization type cannot be set to "basic", use "basic_auth" instead"#;
            return Err(text.to_owned());
        }
        Ok(http_client::Authorization {
            scheme: if scheme.is_empty() { "Bearer" } else { scheme }.to_owned(),
            credentials: secret(base, self.credentials.expose(), self.credentials_file.as_ref()),
        })
    }
}

impl OAuth2 {
    fn to_options(&self, base: &Path) -> Result<http_client::OAuth2, String> {
        if !matches!(self.grant_type.as_str(), "" | "client_credentials") {
            return Err(
                "oauth2 grant_type other than client_credentials is not supported yet".to_owned()
            );
        }
        if self.client_id.is_empty() {
            return Err("oauth2 client_id must be configured".to_owned());
        }
        if self.token_url.is_empty() {
            return Err("oauth2 token_url must be configured".to_owned());
        }
        at_most_one(
            [!self.client_secret.is_empty(), self.client_secret_file.is_some()],
            "oauth2 client_secret, client_secret_file & client_secret_ref",
        )?;
        let own = secret(base, self.client_secret.expose(), self.client_secret_file.as_ref());
        let params = self.endpoint_params.iter();
        Ok(http_client::OAuth2 {
            client_id: self.client_id.clone(),
            client_secret: own.unwrap_or_else(|| http_client::Secret::Inline(String::new())),
            scopes: self.scopes.clone(),
            token_url: self.token_url.clone(),
            endpoint_params: params
                .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                .collect(),
            tls: self.tls_config.to_options(base)?,
            proxy: proxy(
                self.proxy_url.as_ref(),
                &self.no_proxy,
                self.proxy_from_environment,
                &self.proxy_connect_header,
            )?,
        })
    }
}

fn tls_version(name: Option<&str>) -> Result<Option<TlsVersion>, String> {
    Ok(Some(match name {
        None => return Ok(None),
        Some("TLS10") => TlsVersion::Tls10,
        Some("TLS11") => TlsVersion::Tls11,
        Some("TLS12") => TlsVersion::Tls12,
        Some("TLS13") => TlsVersion::Tls13,
        Some(other) => return Err(format!("unknown TLS version: {}", quote(other))),
    }))
}

impl TlsConfig {
    /// As the client takes it.
    pub fn to_options(&self, base: &Path) -> Result<http_client::TlsOptions, String> {
        at_most_one([!self.ca.is_empty(), self.ca_file.is_some()], "ca, ca_file & ca_ref")?;
        at_most_one(
            [!self.cert.is_empty(), self.cert_file.is_some()],
            "cert, cert_file & cert_ref",
        )?;
        at_most_one([!self.key.is_empty(), self.key_file.is_some()], "key and key_file")?;
        let cert = secret(base, &self.cert, self.cert_file.as_ref());
        let key = secret(base, self.key.expose(), self.key_file.as_ref());
        match (&cert, &key) {
            (Some(_), None) => {
                return Err("exactly one of key or key_file must be configured when a client \
                            certificate is configured"
                    .to_owned());
            }
            (None, Some(_)) => {
                return Err("exactly one of cert or cert_file must be configured when a client \
                            key is configured"
                    .to_owned());
            }
            _ => {}
        }
        let min_version = tls_version(self.min_version.as_deref())?;
        let max_version = tls_version(self.max_version.as_deref())?;
        if max_version.is_some() && max_version < min_version {
            return Err("tls_config.max_version must be greater than or equal to \
                        tls_config.min_version if both are specified"
                .to_owned());
        }
        Ok(http_client::TlsOptions {
            ca: secret(base, &self.ca, self.ca_file.as_ref()),
            cert,
            key,
            server_name: self.server_name.clone(),
            insecure_skip_verify: self.insecure_skip_verify,
            min_version,
            max_version,
        })
    }
}

fn proxy(
    url: Option<&SecretUrl>,
    no_proxy: &str,
    from_environment: bool,
    connect_headers: &BTreeMap<String, Vec<Secret>>,
) -> Result<http_client::ProxyOptions, String> {
    let url = url.filter(|url| !url.0.is_empty());
    let refuse = |text: &str| Err(text.to_owned());
    if from_environment && url.is_some() {
        return refuse("if proxy_from_environment is configured, proxy_url must not be configured");
    }
    if from_environment && !no_proxy.is_empty() {
        return refuse("if proxy_from_environment is configured, no_proxy must not be configured");
    }
    if url.is_none() && !no_proxy.is_empty() {
        return refuse("if no_proxy is configured, proxy_url must also be configured");
    }
    if !connect_headers.is_empty() && url.is_none() && !from_environment {
        return refuse(
            "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also \
             be configured",
        );
    }
    if url.is_some_and(|url| url::Url::parse(&url.0).is_err()) {
        return refuse("invalid proxy_url");
    }
    let inline = |secret: &Secret| http_client::Secret::Inline(secret.expose().to_owned());
    Ok(http_client::ProxyOptions {
        url: url.map(|url| http_client::Secret::Inline(url.0.clone())),
        no_proxy: no_proxy.to_owned(),
        from_environment,
        connect_headers: connect_headers
            .iter()
            .map(|(name, values)| (name.clone(), values.iter().map(inline).collect()))
            .collect(),
    })
}

impl HttpConfig {
    /// As the client takes it; relative paths start at `base`, the folder of the configuration.
    ///
    /// # Errors
    /// Prometheus' texts for fields that exclude each other.
    pub fn to_options(&self, base: &Path) -> Result<http_client::Options, String> {
        let has_token = !self.bearer_token.is_empty();
        let has_token_file = self.bearer_token_file.is_some();
        at_most_one([has_token, has_token_file], "bearer_token & bearer_token_file")?;
        let has_bearer = has_token || has_token_file;
        if self.authorization.is_some() && has_bearer {
            let text = "authorization is not compatible with bearer_token & bearer_token_file";
            return Err(text.to_owned());
        }
        at_most_one(
            [self.basic_auth.is_some(), self.oauth2.is_some(), has_bearer],
            "basic_auth, oauth2, bearer_token & bearer_token_file",
        )?;
        at_most_one(
            [self.basic_auth.is_some(), self.oauth2.is_some(), self.authorization.is_some()],
            "basic_auth, oauth2 & authorization",
        )?;
        let mut authorization =
            self.authorization.as_ref().map(|one| one.to_options(base)).transpose()?;
        if has_bearer {
            let token = &self.bearer_token;
            authorization = Some(http_client::Authorization {
                scheme: "Bearer".to_owned(),
                credentials: secret(base, token.expose(), self.bearer_token_file.as_ref()),
            });
        }
        Ok(http_client::Options {
            basic_auth: self.basic_auth.as_ref().map(|one| one.to_options(base)).transpose()?,
            authorization,
            oauth2: self.oauth2.as_ref().map(|one| one.to_options(base)).transpose()?,
            tls: self.tls_config.to_options(base)?,
            proxy: proxy(
                self.proxy_url.as_ref(),
                &self.no_proxy,
                self.proxy_from_environment,
                &self.proxy_connect_header,
            )?,
            follow_redirects: self.follow_redirects.unwrap_or(true),
            enable_http2: self.enable_http2.unwrap_or(true),
            headers: self.headers(base)?,
        })
    }

    fn headers(&self, base: &Path) -> Result<Vec<(String, Vec<http_client::Secret>)>, String> {
        let mut headers = Vec::new();
        for (name, header) in &self.http_headers {
            if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(format!("setting header {} is not allowed", quote(name)));
            }
            let plain = header.values.iter().map(|text| http_client::Secret::Inline(text.clone()));
            let secret = header.secrets.iter();
            let secret = secret.map(|text| http_client::Secret::Inline(text.expose().to_owned()));
            let files = header.files.iter();
            let files = files.map(|file| http_client::Secret::File(resolve(base, file)));
            headers.push((name.clone(), plain.chain(secret).chain(files).collect()));
        }
        Ok(headers)
    }

    /// All files that it names, as seen from `base`.
    pub fn files(&self, base: &Path) -> Vec<PathBuf> {
        let basic =
            self.basic_auth.iter().flat_map(|auth| [&auth.username_file, &auth.password_file]);
        let own = self.authorization.iter().map(|auth| &auth.credentials_file);
        let oauth = self.oauth2.iter().flat_map(|oauth2| {
            let tls = &oauth2.tls_config;
            [&oauth2.client_secret_file, &tls.ca_file, &tls.cert_file, &tls.key_file]
        });
        let tls = &self.tls_config;
        let tls = [&tls.ca_file, &tls.cert_file, &tls.key_file, &self.bearer_token_file];
        let named = basic.chain(own).chain(oauth).chain(tls).flatten();
        let headers = self.http_headers.values().flat_map(|header| &header.files);
        named.chain(headers).map(|file| resolve(base, file)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::load;

    fn error(text: &str) -> String {
        let config: HttpConfig = load(Path::new("n.yml"), text).unwrap();
        config.to_options(Path::new("/etc")).unwrap_err()
    }

    #[test]
    fn contradictions_are_refused_in_the_words_of_prometheus() {
        insta::assert_snapshot!(error("{basic_auth: {password: a, password_file: b}}"), @"at most one of basic_auth password, password_file & password_ref must be configured");
        insta::assert_snapshot!(error("{basic_auth: {username: a}, authorization: {credentials: b}}"), @"at most one of basic_auth, oauth2 & authorization must be configured");
        insta::assert_snapshot!(error("{authorization: {type: Basic}}"), @r#"authorization type cannot be set to "basic", use "basic_auth" instead"#);
        insta::assert_snapshot!(error("{no_proxy: a}"), @"if no_proxy is configured, proxy_url must also be configured");
        insta::assert_snapshot!(error("{tls_config: {cert_file: a}}"), @"exactly one of key or key_file must be configured when a client certificate is configured");
        insta::assert_snapshot!(error("{tls_config: {min_version: TLS9}}"), @r#"unknown TLS version: "TLS9""#);
        insta::assert_snapshot!(error("{http_headers: {Host: {values: [a]}}}"), @r#"setting header "Host" is not allowed"#);
        insta::assert_snapshot!(error("{bearer_token: a, basic_auth: {}}"), @"at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured");
        insta::assert_snapshot!(error("{oauth2: {client_id: a}}"), @"oauth2 token_url must be configured");
    }

    #[test]
    fn files_are_resolved_and_secrets_hidden() {
        let text = "basic_auth: {username: u, password: p4ss}\ntls_config: {ca_file: ca.pem}\n\
                    proxy_url: http://me:p4ss@proxy:8080\nhttp_headers: {X-A: {secrets: [p4ss]}}";
        let config: HttpConfig = load(Path::new("n.yml"), text).unwrap();
        let options = config.to_options(Path::new("/etc/n")).unwrap();
        let ca = http_client::Secret::File(PathBuf::from("/etc/n/ca.pem"));
        assert_eq!(options.tls.ca, Some(ca));
        assert!(options.follow_redirects);
        assert_eq!(config.files(Path::new("/etc/n")), [PathBuf::from("/etc/n/ca.pem")]);
        let shown = serde_saphyr::to_string(&config).unwrap();
        assert!(!shown.contains("p4ss") && !format!("{config:?}").contains("p4ss"), "{shown}");
        insta::assert_snapshot!(shown, @r"
basic_auth:
  username: u
  password: <secret>
tls_config:
  ca_file: ca.pem
  insecure_skip_verify: false
proxy_url: http://me:xxxxx@proxy:8080/
http_headers:
  X-A:
    secrets:
    - <secret>
");
    }
}
