//! Servers with certificates that only our own authority has signed, or not even that.
use std::{fs, path::Path, process::Command, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// An authority, and what it has signed: `server` for 127.0.0.1 and `elsewhere` for other.example, both for two days; `alone` has
/// signed itself.
pub(crate) struct Certificates {
    /// The authority's certificate, as PEM.
    pub(crate) authority: Vec<u8>,
    folder: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_certificates(folder.path());
        Self { authority: fs::read(folder.path().join("authority.pem")).unwrap(), folder }
    }

    /// Speaks TLS with that certificate, and within it one of these protocols.
    pub(crate) fn acceptor(&self, name: &str, protocols: &[&[u8]]) -> TlsAcceptor {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let read = |extension: &str| fs::read(self.folder.path().join(format!("{name}.{extension}"))).unwrap();
        let certificate = CertificateDer::from_pem_slice(&read("pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&read("key")).unwrap();
        let mut config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// In front of `http://…` with that certificate; its own address, `127.0.0.1:…`. It ends with the runtime.
    pub(crate) async fn in_front_of(&self, endpoint: &str, name: &str) -> String {
        let acceptor = self.acceptor(name, &[]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    // A client that does not trust us breaks off.
                    let Ok(mut outside) = acceptor.accept(stream).await else { return };
                    let mut inside = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        address.to_string()
    }
}

/// A server that is trusted by whoever trusts our authority. It hands on what it is told; it ends with the runtime.
pub(crate) struct Front {
    pub(crate) endpoint: String,
    /// The authority's certificate, as PEM.
    pub(crate) authority: Vec<u8>,
}

impl Front {
    /// In front of `http://…`.
    pub(crate) async fn of(endpoint: &str) -> Self {
        let certificates = Certificates::make();
        let address = certificates.in_front_of(endpoint, "server").await;
        Self { endpoint: format!("https://{address}"), authority: certificates.authority }
    }
}

/// What speaks TLS as 127.0.0.1, and the certificate of its authority, as PEM.
pub(crate) fn acceptor() -> (TlsAcceptor, Vec<u8>) {
    let certificates = Certificates::make();
    (certificates.acceptor("server", &[]), certificates.authority)
}

fn make_certificates(folder: &Path) {
    let script = "\
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj '/CN=our own authority' -keyout authority.key -out authority.pem
        sign() {
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj \"/CN=$2\" -keyout $1.key -out $1.csr
            printf \"subjectAltName=$3\\nbasicConstraints=CA:FALSE\\n\" > extensions
            openssl x509 -req -in $1.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile extensions -out $1.pem
        }
        sign server 127.0.0.1 IP:127.0.0.1
        sign elsewhere other.example DNS:other.example
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=127.0.0.1' \
            -addext subjectAltName=IP:127.0.0.1 -keyout alone.key -out alone.pem";
    let made = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
