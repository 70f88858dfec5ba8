//! TLS that looks at the certificate itself: the connection is made whatever the certificate is, and then it is judged.
//!
//! Sessions are not taken up again: a server does not show its certificate then, and the one of last week would be judged.
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::reach::Fail;
use crate::{
    clock::Clock,
    model::watch::{Certificate, Trouble},
};

/// Without a word of its owner's a certificate is to last so much longer, or a quarter of its whole life if that is less.
const NOTICE: TimeDelta = TimeDelta::days(14);

/// What is needed to speak TLS and to judge certificates; made once.
#[derive(Debug)]
pub struct Tls {
    http1: Arc<ClientConfig>,
    both: Arc<ClientConfig>,
    plain: Arc<ClientConfig>,
    judge: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
    others: Mutex<HashMap<PathBuf, Arc<WebPkiServerVerifier>>>,
    provider: Arc<CryptoProvider>,
}

/// What is spoken within TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    Http1,
    /// HTTP/2 where the server can.
    Http2,
    Anything,
}

/// A certificate and what there is to say of it.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) certificate: Certificate,
    /// From its beginning to its end.
    life: TimeDelta,
}

impl Shown {
    /// Seconds until the first of its chain ends.
    pub(super) fn left(&self, now: DateTime<Utc>) -> i64 {
        (self.certificate.ends - now).num_seconds()
    }

    /// How long it is to last, without a word of its owner's.
    pub(super) fn notice(&self) -> TimeDelta {
        NOTICE.min(self.life / 4)
    }
}

impl Tls {
    /// # Errors
    /// When the TLS library cannot be set up.
    pub(super) fn new() -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = |protocols: &[&[u8]]| -> anyhow::Result<Arc<ClientConfig>> {
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(LetPass(Arc::clone(&provider))))
                .with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            config.resumption = Resumption::disabled();
            Ok(Arc::new(config))
        };
        Ok(Self {
            http1: config(&[b"http/1.1"])?,
            both: config(&[b"h2", b"http/1.1"])?,
            plain: config(&[])?,
            judge: OnceLock::new(),
            others: Mutex::default(),
            provider,
        })
    }

    /// Agrees on TLS with `name`, whatever certificate it shows; the certificate is judged by the machine's authorities and those of
    /// `ca`.
    pub(super) async fn begin(
        &self,
        stream: TcpStream,
        name: &str,
        within: Within,
        clock: &Clock,
        ca: Option<&Path>,
    ) -> Result<(TlsStream<TcpStream>, Shown), Fail> {
        let bare = name.trim_matches(['[', ']']).to_owned();
        let server = ServerName::try_from(bare)
            .map_err(|_| Fail::new(Trouble::Tls, format!("`{name}` cannot be the name of a TLS server")))?;
        let config = match within {
            Within::Http1 => &self.http1,
            Within::Http2 => &self.both,
            Within::Anything => &self.plain,
        };
        let judge = match ca {
            Some(path) => {
                Some(self.judge_of(path).map_err(|error| Fail::new(Trouble::NotAllowed, format!("{error:#}")))?)
            }
            None => self.judge.get_or_init(|| self.of_this_machine()).clone(),
        };
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(server.clone(), stream)
            .await
            .map_err(|error| broken(&error))?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let shown = look_at(chain, &server, judge.as_deref(), clock.now())?;
        Ok((stream, shown))
    }

    fn of_this_machine(&self) -> Option<Arc<WebPkiServerVerifier>> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        self.verifier(roots).ok()
    }

    fn judge_of(&self, path: &Path) -> anyhow::Result<Arc<WebPkiServerVerifier>> {
        let others = || self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = others().get(path) {
            return Ok(Arc::clone(known));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let context = || format!("read the authorities of {}", path.display());
        let pem = std::fs::read(path).with_context(context)?;
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.with_context(context)?).with_context(context)?;
        }
        anyhow::ensure!(roots.len() > before, "there is no certificate in {}", path.display());
        let judge = self.verifier(roots)?;
        others().insert(path.to_owned(), Arc::clone(&judge));
        Ok(judge)
    }

    fn verifier(&self, roots: RootCertStore) -> anyhow::Result<Arc<WebPkiServerVerifier>> {
        Ok(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build()?)
    }
}

/// Lets every certificate pass, and only checks that the server has its key: [`look_at`] judges it.
#[derive(Debug)]
struct LetPass(Arc<CryptoProvider>);

impl ServerCertVerifier for LetPass {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Reads and judges what a server showed.
fn look_at(
    chain: &[CertificateDer<'_>],
    server: &ServerName<'_>,
    judge: Option<&WebPkiServerVerifier>,
    now: DateTime<Utc>,
) -> Result<Shown, Fail> {
    let [leaf, rest @ ..] = chain else { return Err(Fail::new(Trouble::Tls, "it shows no certificate")) };
    let read = |der: &[u8]| X509Certificate::from_der(der).ok().map(|(_, certificate)| validity(&certificate));
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return Err(Fail::new(Trouble::Certificate, "its certificate cannot be read"));
    };
    let (begins, own_end) = validity(&parsed);
    // A chain may drag along an old certificate that nobody needs any more.
    let others = rest.iter().filter_map(|der| read(der)).map(|(_, ends)| ends).filter(|ends| *ends > now);
    let ends = others.chain([own_end]).min().unwrap_or(own_end);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.timestamp()).unwrap_or(0)));
    let verdict = judge.map(|judge| judge.verify_server_cert(leaf, rest, server, &[], at));
    let distrust = match verdict {
        None => Some("this machine knows no authorities to trust (Debian: apt install ca-certificates)".to_owned()),
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(why(&error, &parsed, server, own_end, begins, now)),
    };
    Ok(Shown { certificate: Certificate { ends, distrust }, life: own_end - begins })
}

fn validity(certificate: &X509Certificate<'_>) -> (DateTime<Utc>, DateTime<Utc>) {
    let time = |seconds: i64| DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let validity = certificate.validity();
    (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()))
}

/// Why a certificate is not trusted, to go behind "the certificate".
fn why(
    error: &rustls::Error,
    leaf: &X509Certificate<'_>,
    server: &ServerName<'_>,
    ends: DateTime<Utc>,
    begins: DateTime<Utc>,
    now: DateTime<Utc>,
) -> String {
    let rustls::Error::InvalidCertificate(error) = error else { return format!("cannot be judged: {error}") };
    let far = |length: TimeDelta| super::condition::long(length.to_std().unwrap_or_default());
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } if ends <= now => {
            format!("expired {} ago", far(now - ends))
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has an expired one in its chain".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } if begins > now => {
            format!("begins only in {}: is a clock wrong?", far(begins - now))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let names = names(leaf);
            let of =
                if names.is_empty() { "for no name at all".to_owned() } else { format!("for {}", names.join(", ")) };
            format!("is not for {} but {of}", server.to_str())
        }
        // One that has signed itself is an authority too, as openssl makes it.
        CertificateError::UnknownIssuer | CertificateError::Other(_) if leaf.issuer() == leaf.subject() => {
            "is self-signed".to_owned()
        }
        CertificateError::UnknownIssuer => {
            let issuer =
                leaf.issuer().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or("somebody");
            format!("is signed by {}, which is not trusted here", super::condition::quoted(issuer))
        }
        CertificateError::Revoked => "is revoked".to_owned(),
        error => format!("is not trusted: {error}"),
    }
}

/// The names that a certificate is for, a few of them.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let all = alternatives.iter().flat_map(|names| &names.value.general_names);
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress([a, b, c, d]) => Some(format!("{a}.{b}.{c}.{d}")),
        _ => None,
    };
    all.filter_map(name)
        .take(5)
        .map(|name| name.chars().filter(|letter| !letter.is_control()).take(80).collect())
        .collect()
}

fn broken(error: &std::io::Error) -> Fail {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => Fail::new(Trouble::Tls, "what answers there does not speak TLS"),
        Some(error) => Fail::new(Trouble::Tls, format!("TLS could not be agreed on: {error}")),
        None => Fail::new(Trouble::Broken, "the connection broke while TLS was agreed on"),
    }
}
