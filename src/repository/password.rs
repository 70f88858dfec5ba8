//! Key files: the repository's own key, sealed with one made of a password. A repository may have several.
use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::crypto::Key;

/// What a new key file asks of who tries passwords: 2^15 × 8 × 128 bytes are 32 MiB of memory, twice over: about a fifth of a
/// second. restic's own ask for as much memory.
const LOG_N: u8 = 15;
/// More memory than this is never spent on a key file, whoever wrote it, and no more than four rounds over all of it.
const MOST_MEMORY: u64 = 1 << 30;
const MOST_WORK: u64 = 4 * MOST_MEMORY;

/// `keys/ID` of a repository; the format is restic's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyFile {
    /// When it was made; rustic does not say unless it is told to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<DateTime<Utc>>,
    /// Who made it, where that is said.
    #[serde(default)]
    pub username: String,
    /// Where.
    #[serde(default)]
    pub hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

impl KeyFile {
    /// Seals `key` with a password. It takes a moment and 32 MiB.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn seal(key: &Key, password: &[u8], host: &str, now: DateTime<Utc>) -> anyhow::Result<Self> {
        let mut salt = [0; 64];
        getrandom::fill(&mut salt)?;
        let (n, r, p) = (1 << LOG_N, 8, 2);
        let sealed = stretch(password, &salt, n, r, p)?.seal(&key.to_json())?;
        Ok(Self {
            created: Some(now),
            username: "rusuban".into(),
            hostname: host.into(),
            kdf: "scrypt".into(),
            n,
            r,
            p,
            salt: BASE64_STANDARD.encode(salt),
            data: BASE64_STANDARD.encode(sealed),
        })
    }

    /// The repository's key; `None` when the password is another.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn open(&self, password: &[u8]) -> anyhow::Result<Option<Key>> {
        ensure!(self.kdf == "scrypt", "its key is made by `{}`, which is not known here", self.kdf);
        let salt = BASE64_STANDARD.decode(&self.salt).context("its salt")?;
        let sealed = BASE64_STANDARD.decode(&self.data).context("its data")?;
        let made = stretch(password, &salt, self.n, self.r, self.p)?;
        made.open(&sealed).ok().map(|json| Key::from_json(&json)).transpose()
    }
}

fn stretch(password: &[u8], salt: &[u8], n: u64, r: u32, p: u32) -> anyhow::Result<Key> {
    ensure!(n.is_power_of_two() && n > 1, "N = {n} is no power of two");
    let memory = u64::from(r).checked_mul(128).and_then(|block| block.checked_mul(n));
    ensure!(
        memory.is_some_and(|memory| memory <= MOST_MEMORY),
        "it asks for more than a GiB of memory to try one password (N = {n}, r = {r})"
    );
    let work = memory.and_then(|memory| memory.checked_mul(p.into()));
    ensure!(work.is_some_and(|work| work <= MOST_WORK), "it asks for p = {p} rounds to try one password");
    // A power of two below 2^64.
    let parameters = scrypt::Params::new(n.trailing_zeros() as u8, r, p).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut made = [0; 64];
    scrypt::scrypt(password, salt, &parameters, &mut made).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(Key::from_bytes(&made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_opens_a_key_file() {
        let key = Key::random().unwrap();
        let file = KeyFile::seal(&key, b"right", "host", DateTime::UNIX_EPOCH).unwrap();
        let file: KeyFile = serde_json::from_slice(&serde_json::to_vec(&file).unwrap()).unwrap();
        assert_eq!(file.open(b"right").unwrap().unwrap().to_json(), key.to_json());
        assert!(file.open(b"wrong").unwrap().is_none());
        let greedy = KeyFile { n: 1 << 40, ..file };
        assert!(greedy.open(b"right").unwrap_err().to_string().contains("memory"));
    }
}
