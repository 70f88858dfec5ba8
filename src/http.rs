//! The one HTTP client, for everything but S3.
use std::time::Duration;

use anyhow::Context as _;

/// How Rusuban names itself to servers.
const NAME: &str = concat!("rusuban/", env!("CARGO_PKG_VERSION"));

/// A client with time limits and few redirects. On a machine without certificates it speaks plain http only; https then fails
/// with a message that says so.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client() -> anyhow::Result<reqwest::Client> {
    // A second call finds it installed, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        reqwest::Client::builder()
            .user_agent(NAME)
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::limited(5))
            .pool_idle_timeout(Duration::from_secs(30))
    };
    match builder().build() {
        Ok(client) => Ok(client),
        Err(error) => {
            tracing::warn!(%error, "no certificates on this machine (Debian: apt install ca-certificates): https will fail");
            builder().tls_certs_only([]).build().context("make the HTTP client")
        }
    }
}
