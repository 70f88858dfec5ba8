//! TLS to an engine: whom we trust, and who we are.
use std::path::Path;

use anyhow::Context as _;
use reqwest::{Certificate, ClientBuilder, Identity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{
    mistake::Problem,
    secret::{SecretReader, SecretSource, TextOrSecret},
};

/// Certificates for an engine: files in PEM, relative to the home folder, or where to read them, such as `{ env = "DOCKER_KEY" }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// Of the authority that signed the engine's certificate [default: those that this machine trusts].
    pub ca: Option<TextOrSecret>,
    /// Our own certificate.
    pub cert: Option<TextOrSecret>,
    /// Its key.
    pub key: Option<TextOrSecret>,
}

/// Where certificates are read, each time that an engine is called.
#[derive(Clone, Debug)]
pub(super) struct Certificates {
    ca: Option<SecretSource>,
    identity: Option<(SecretSource, SecretSource)>,
    reader: SecretReader,
}

impl TlsSettings {
    /// What is wrong with it.
    pub(super) fn check(&self) -> Option<Problem> {
        let all = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        for (name, value) in all {
            if let Some(TextOrSecret::Text(text)) = value
                && (text.is_empty() || text.contains("-----BEGIN"))
            {
                return Some(
                    Problem::new(format!("docker.tls.{name}"), "this is not the name of a file")
                        .hint(format!("write the file's path, `{name} = \"docker/{name}.pem\"`")),
                );
            }
        }
        let alone = match (&self.cert, &self.key) {
            (Some(_), None) => ("cert", "key"),
            (None, Some(_)) => ("key", "cert"),
            _ => return None,
        };
        let (has, lacks) = alone;
        Some(
            Problem::new(format!("docker.tls.{has}"), format!("there is a `{has}` and no `{lacks}`"))
                .hint("an engine asks for both: `cert` is shown to it, and `key` proves that it is ours"),
        )
    }

    /// Where they are read.
    pub(super) fn certificates(&self, reader: SecretReader) -> Certificates {
        let source = |value: &Option<TextOrSecret>| match value.clone()? {
            TextOrSecret::Text(path) => Some(SecretSource::File(path.into())),
            TextOrSecret::Secret(source) => Some(source),
        };
        Certificates { ca: source(&self.ca), identity: source(&self.cert).zip(source(&self.key)), reader }
    }
}

impl Certificates {
    /// Those of a folder, as the `docker` program has them.
    pub(super) fn of_folder(folder: &Path, reader: SecretReader) -> Self {
        let file = |name: &str| SecretSource::File(folder.join(name));
        // An engine that asks nobody who he is gets none.
        let has_identity = folder.join("cert.pem").exists() || folder.join("key.pem").exists();
        let identity = has_identity.then(|| (file("cert.pem"), file("key.pem")));
        Self { ca: Some(file("ca.pem")), identity, reader }
    }

    /// Those that are secret.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        self.identity.iter().map(|(_, key)| key)
    }

    /// Has a client use them.
    pub(super) fn dress(&self, builder: ClientBuilder) -> anyhow::Result<ClientBuilder> {
        let read = |what: &str, source: &SecretSource| {
            (self.reader.0)(source).with_context(|| format!("{what} for the Docker engine"))
        };
        let builder = match &self.ca {
            Some(source) => {
                let text = read("the authority's certificate (`ca`)", source)?;
                let all = Certificate::from_pem_bundle(text.reveal().as_bytes());
                let all = all.ok().filter(|all| !all.is_empty());
                builder.tls_certs_only(all.context("what `ca` names holds no certificate in PEM")?)
            }
            None => builder,
        };
        let Some((cert, key)) = &self.identity else { return Ok(builder) };
        let both = [read("our certificate (`cert`)", cert)?, read("its key (`key`)", key)?];
        let both = both.map(|one| one.reveal().to_owned()).join("\n");
        // It says no more than that; and it must not, for there is a key in it.
        let identity = Identity::from_pem(both.as_bytes()).ok();
        Ok(builder.identity(identity.context("what `cert` and `key` name are no certificate and its key in PEM")?))
    }
}

/// What the other side's "no" means, and what to do.
pub(super) fn explain(why: &str, certificates: Option<&Certificates>) -> Option<String> {
    let is_nameless = certificates.is_none_or(|certificates| certificates.identity.is_none());
    let lower = why.to_lowercase();
    let has = |part: &str| lower.contains(part);
    let hint = if has("unknownissuer") || has("unknown issuer") {
        "its certificate is signed by another authority than the one of `ca`"
    } else if has("notvalidforname") || has("not valid for name") {
        "its certificate is for another name: write the host as the certificate calls it, or have it made with this name in it"
    } else if has("invalid peer certificate: expired") || has("certificate expired") {
        "its certificate has expired, or the clock of this machine is wrong"
    } else if has("certificaterequired") || has("certificate required") || (is_nameless && has("badcertificate")) {
        "it wants to see a certificate of ours: give it with `cert` and `key`"
    } else if has("badcertificate")
        || has("bad certificate")
        || has("unknownca")
        || has("unknown ca")
        || has("decrypterror")
        || has("received fatal alert")
    {
        "it does not accept our certificate: that must be signed by the authority which the engine was given (`--tlscacert`)"
    } else if has("corrupt message") || has("invalidcontenttype") {
        "it does not speak TLS: is this the engine's port for plain connections?"
    } else {
        return None;
    };
    Some(format!("{why}; {hint}"))
}
