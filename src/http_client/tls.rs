//! TLS settings of a client: which certificates to trust, which to show, which name to expect.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{Secret, SendError, TlsOptions, TlsVersion};

/// The texts behind a [`TlsOptions`]; compared to learn whether files have changed.
#[derive(PartialEq, Eq)]
pub(super) struct Material {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
}

impl Material {
    pub(super) async fn load(options: &TlsOptions) -> Result<Self, SendError> {
        async fn text(secret: Option<&Secret>) -> Result<Option<String>, SendError> {
            match secret {
                Some(secret) => secret.load().await.map(Some),
                None => Ok(None),
            }
        }
        Ok(Self {
            ca: text(options.ca.as_ref()).await?,
            cert: text(options.cert.as_ref()).await?,
            key: text(options.key.as_ref()).await?,
        })
    }
}

/// Whether any part must be read from a file.
pub(super) fn has_files(options: &TlsOptions) -> bool {
    let parts = [&options.ca, &options.cert, &options.key];
    parts.into_iter().flatten().any(|part| matches!(part, Secret::File(_)))
}

/// The settings for rustls.
pub(super) fn config(
    options: &TlsOptions,
    material: &Material,
    http2: bool,
) -> Result<ClientConfig, SendError> {
    let failed = |err: rustls::Error| SendError::Tls(err.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = versions(options);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(options, material, &provider)?);
    let mut config = match (&material.cert, &material.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert, "client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| {
                SendError::Tls("unable to use specified client key: no PEM key found".to_owned())
            })?;
            builder.with_client_auth_cert(chain, key).map_err(failed)?
        }
        _ => builder.with_no_client_auth(),
    };
    if http2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(config)
}

fn versions(options: &TlsOptions) -> Vec<&'static rustls::SupportedProtocolVersion> {
    let min = options.min_version.unwrap_or(TlsVersion::Tls12);
    let max = options.max_version.unwrap_or(TlsVersion::Tls13);
    [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)]
        .into_iter()
        .filter(|(version, _)| min <= *version && *version <= max)
        .map(|(_, version)| version)
        .collect()
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, SendError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match parsed {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => {
            Err(SendError::Tls(format!("unable to use specified {what}: no PEM certificate found")))
        }
    }
}

fn verifier(
    options: &TlsOptions,
    material: &Material,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, SendError> {
    if options.insecure_skip_verify {
        return Ok(Arc::new(Anything(Arc::clone(provider))));
    }
    let inner: Arc<dyn ServerCertVerifier> = match &material.ca {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem, "CA cert")? {
                roots.add(certificate).map_err(|err| SendError::Tls(err.to_string()))?;
            }
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|err| SendError::Tls(err.to_string()))?
        }
        None => Arc::new(
            rustls_platform_verifier::Verifier::new(Arc::clone(provider))
                .map_err(|err| SendError::Tls(err.to_string()))?,
        ),
    };
    if options.server_name.is_empty() {
        return Ok(inner);
    }
    let name = ServerName::try_from(options.server_name.clone())
        .map_err(|_| SendError::Tls(format!("invalid server_name {:?}", options.server_name)))?;
    Ok(Arc::new(Renamed { inner, name }))
}

/// Checks the certificate for a configured name instead of the one that was dialled.
#[derive(Debug)]
struct Renamed {
    inner: Arc<dyn ServerCertVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Renamed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = &self.name;
        self.inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Accepts any certificate (`insecure_skip_verify`), but the handshake must still be signed by it.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
