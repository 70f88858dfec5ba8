//! What notifiers remember, in the ledger, sealed: a session is as good as a password, and the ledger is backed up. The key is a file of its
//! own in the data folder; without it they have forgotten, which costs a sign-in.
use std::{
    fmt, fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use anyhow::{Context as _, anyhow};
use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _,
    aead::{Aead as _, Payload},
};
use serde_json::{Value, json};

use crate::{notify::Memory, store::Store};

/// The key's file in the data folder.
const FILE: &str = "notifiers.key";

/// The memories of all notifiers.
pub(super) struct Memories {
    store: Store,
    file: PathBuf,
    key: OnceLock<[u8; 32]>,
}

/// One notifier's.
struct OfOne {
    all: Arc<Memories>,
    name: String,
}

impl fmt::Debug for OfOne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({})", self.name)
    }
}

impl Memories {
    pub(super) fn new(store: Store, data: PathBuf) -> Self {
        Self { store, file: data.join(FILE), key: OnceLock::new() }
    }

    pub(super) fn of(self: &Arc<Self>, name: &str) -> Arc<dyn Memory> {
        Arc::new(OfOne { all: Arc::clone(self), name: name.to_owned() })
    }

    /// The key, made when there is none yet.
    fn key(&self) -> anyhow::Result<[u8; 32]> {
        if let Some(key) = self.key.get() {
            return Ok(*key);
        }
        let what = || format!("use the key in {}", self.file.display());
        let key = match fs::read(&self.file) {
            Ok(bytes) => bytes.try_into().map_err(|_| anyhow!("it is damaged: remove it")).with_context(what)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(|error| anyhow!("get randomness: {error}"))?;
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&self.file)
                    .with_context(what)?;
                file.write_all(&key).and_then(|()| file.sync_all()).with_context(what)?;
                key
            }
            Err(error) => return Err(error).with_context(what),
        };
        Ok(*self.key.get_or_init(|| key))
    }

    fn seal(&self, place: &str, value: &Value) -> anyhow::Result<Value> {
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(|error| anyhow!("get randomness: {error}"))?;
        let text = value.to_string();
        let sealed = ChaCha20Poly1305::new(&self.key()?.into())
            .encrypt(&nonce.into(), Payload { msg: text.as_bytes(), aad: place.as_bytes() })
            .map_err(|_| anyhow!("seal what a notifier remembers"))?;
        Ok(json!({ "sealed": BASE64_STANDARD.encode([nonce.as_slice(), &sealed].concat()) }))
    }

    fn open(&self, place: &str, value: &Value) -> anyhow::Result<Value> {
        let what = || anyhow!("what was remembered cannot be opened: the key has changed");
        let text = value.get("sealed").and_then(Value::as_str).ok_or_else(what)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| what())?;
        let (nonce, sealed) = bytes.split_first_chunk::<12>().ok_or_else(what)?;
        let opened = ChaCha20Poly1305::new(&self.key()?.into())
            .decrypt(&(*nonce).into(), Payload { msg: sealed, aad: place.as_bytes() })
            .map_err(|_| what())?;
        Ok(serde_json::from_slice(&opened)?)
    }
}

#[async_trait]
impl Memory for OfOne {
    async fn state(&self, key: &str) -> anyhow::Result<Option<Value>> {
        let Some(value) = self.all.store.memory_of_notifier(&self.name, key).await? else { return Ok(None) };
        self.all.open(&format!("{}:{key}", self.name), &value).map(Some)
    }

    async fn remember(&self, key: &str, value: Value) -> anyhow::Result<()> {
        let sealed = self.all.seal(&format!("{}:{key}", self.name), &value)?;
        self.all.store.remember_of_notifier(&self.name, key, &sealed).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn what_a_notifier_remembers_is_sealed_and_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_memory(Clock::system()).unwrap();
        let memories = Arc::new(Memories::new(store.clone(), folder.path().to_owned()));
        let (feed, other) = (memories.of("feed"), memories.of("other"));
        assert_eq!(feed.state("session").await.unwrap(), None);
        feed.remember("session", json!({ "token": "hunter22" })).await.unwrap();
        assert_eq!(feed.state("session").await.unwrap(), Some(json!({ "token": "hunter22" })));
        assert_eq!(other.state("session").await.unwrap(), None);
        let kept = store.memory_of_notifier("feed", "session").await.unwrap().unwrap();
        assert!(!kept.to_string().contains("hunter"), "{kept}");
        // Another's place, or another key: forgotten, and never something else.
        store.remember_of_notifier("other", "session", &kept).await.unwrap();
        other.state("session").await.unwrap_err();
        fs::remove_file(folder.path().join(FILE)).unwrap();
        let later = Arc::new(Memories::new(store, folder.path().to_owned()));
        later.of("feed").state("session").await.unwrap_err();
    }
}
