//! A server with a certificate that only our own authority has signed, in front of another server.
use std::{fs, path::Path, process::Command, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// It hands on what it is told; it ends with the runtime.
pub(crate) struct Front {
    pub(crate) endpoint: String,
    /// The authority's certificate, as PEM.
    pub(crate) authority: Vec<u8>,
}

impl Front {
    /// In front of `http://…`.
    pub(crate) async fn of(endpoint: &str) -> Self {
        let (acceptor, authority) = acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind = endpoint.trim_start_matches("http://").to_owned();
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
        Self { endpoint: format!("https://127.0.0.1:{port}"), authority }
    }
}

/// What speaks TLS as 127.0.0.1, and the certificate of its authority, as PEM.
pub(crate) fn acceptor() -> (TlsAcceptor, Vec<u8>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    make_certificates(folder.path());
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let certificate = CertificateDer::from_pem_slice(&read("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&read("server.key")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    (TlsAcceptor::from(Arc::new(config)), read("authority.pem"))
}

fn make_certificates(folder: &Path) {
    let script = "\
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=our own authority' -keyout authority.key -out authority.pem
        openssl req -newkey rsa:2048 -nodes -subj '/CN=127.0.0.1' -keyout server.key -out server.csr
        printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > extensions
        openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile extensions -out server.pem";
    let made = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
