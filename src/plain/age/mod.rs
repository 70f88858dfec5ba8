//! Encryption to public keys in the age format, version 1 (age-encryption.org/v1), with X25519 recipients: the host that
//! writes a backup need not be able to read it. What is written here, the `age` program decrypts, and the other way round.
mod header;
mod stream;

use std::{fmt, str::FromStr};

use bech32::{Bech32, Hrp, primitives::decode::CheckedHrpstring};
use x25519_dalek::{PublicKey, StaticSecret};

pub use stream::{Decryptor, Encryptor};

/// Who can read: the public half of a key, `age1…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(PublicKey);

/// The secret half of a key, `AGE-SECRET-KEY-1…`. It is never printed.
#[derive(Clone)]
pub struct Identity(StaticSecret);

/// Why something cannot be decrypted, or a key not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// The header is not one of age, version 1.
    #[error("not encrypted with age, or damaged in its first bytes: {0}")]
    NotAge(&'static str),
    /// None of the keys given is one of its recipients.
    #[error("none of the keys given opens it: it was encrypted to other recipients")]
    NoKeyFits,
    /// Its first bytes were changed after it was written.
    #[error("the header was changed after it was written")]
    HeaderChanged,
    /// Its contents were changed after it was written.
    #[error("the contents were changed after they were written, from byte {0} on")]
    Changed(u64),
    /// It ends too early.
    #[error("it ends too early: the last piece is missing")]
    Truncated,
    /// There is more after its end.
    #[error("there are bytes after its end")]
    Trailing,
    /// Not a key.
    #[error("{0}")]
    Key(String),
}

impl From<AgeError> for std::io::Error {
    fn from(error: AgeError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

impl Identity {
    /// A new key.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn generate() -> Result<Self, AgeError> {
        Ok(Self(StaticSecret::from(random::<32>()?)))
    }

    /// Its public half.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(PublicKey::from(&self.0))
    }

    /// The text to keep safe: `AGE-SECRET-KEY-1…`.
    #[must_use]
    pub fn reveal(&self) -> String {
        let prefix = Hrp::parse_unchecked("age-secret-key-");
        // 32 bytes are well within what bech32 can hold.
        bech32::encode_upper::<Bech32>(prefix, self.0.as_bytes()).unwrap_or_default()
    }

    /// The keys of a key file, as `age-keygen` writes it: one a line, lines with `#` are comments.
    ///
    /// # Errors
    /// When a line is no key, or there is none at all.
    pub fn parse_file(text: &str) -> Result<Vec<Self>, AgeError> {
        let keys: Vec<Self> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(AgeError::Key("there is no key in it: a key file has a line AGE-SECRET-KEY-1…".into()));
        }
        Ok(keys)
    }
}

impl FromStr for Recipient {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let text = text.trim();
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err(AgeError::Key(
                "this is a secret key: put its public half here (`age-keygen -y KEYFILE` prints it) and keep the secret away from this host"
                    .into(),
            ));
        }
        let wrong = |why: &str| AgeError::Key(format!("`{text}` is not an age recipient: {why}"));
        if text.starts_with("ssh-") {
            return Err(wrong("SSH keys are not supported; make a key with `age-keygen`"));
        }
        let bytes = key_bytes("age", text).map_err(|why| wrong(&why))?;
        Ok(Self(PublicKey::from(bytes)))
    }
}

impl FromStr for Identity {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        // The text may be a mistyped secret: it is not repeated.
        let wrong = |why: String| AgeError::Key(format!("not an age secret key: {why}"));
        if text.trim().starts_with("age1") {
            return Err(wrong("this is the public half; the secret begins with AGE-SECRET-KEY-1".into()));
        }
        Ok(Self(StaticSecret::from(key_bytes("age-secret-key-", text.trim()).map_err(wrong)?)))
    }
}

fn key_bytes(prefix: &str, text: &str) -> Result<[u8; 32], String> {
    let parsed = CheckedHrpstring::new::<Bech32>(text).map_err(|_| "mistyped or cut off".to_owned())?;
    if !parsed.hrp().as_str().eq_ignore_ascii_case(prefix) {
        return Err(format!("keys for this begin with `{prefix}1`; other kinds of keys are not supported"));
    }
    let mut bytes = [0; 32];
    let mut found = parsed.byte_iter();
    for byte in &mut bytes {
        *byte = found.next().ok_or("cut off")?;
    }
    match found.next() {
        None => Ok(bytes),
        Some(_) => Err("too long: other kinds of keys are not supported".into()),
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = Hrp::parse_unchecked("age");
        f.pad(&bech32::encode::<Bech32>(prefix, self.0.as_bytes()).unwrap_or_default())
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(of {})", self.recipient())
    }
}

fn random<const N: usize>() -> Result<[u8; N], AgeError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| AgeError::Key(format!("the operating system has no random numbers: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    pub(super) fn encrypt(plain: &[u8], to: &[Recipient]) -> Vec<u8> {
        let mut writer = Encryptor::new(Vec::new(), to).unwrap();
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    pub(super) fn decrypt(stored: &[u8], with: &[Identity]) -> Result<Vec<u8>, AgeError> {
        let told = |error: std::io::Error| error.downcast::<AgeError>().unwrap();
        let mut reader = Decryptor::new(stored, with).map_err(told)?;
        let mut plain = Vec::new();
        reader.read_to_end(&mut plain).map_err(told)?;
        Ok(plain)
    }

    #[test]
    fn keys_read_back_as_printed_and_mistakes_are_told_apart() {
        let key = Identity::generate().unwrap();
        let again: Identity = key.reveal().parse().unwrap();
        assert_eq!(again.recipient(), key.recipient());
        assert_eq!(key.recipient().to_string().parse(), Ok(key.recipient()));
        assert!(!format!("{key:?}").contains(&key.reveal()));
        let secret_as_recipient = key.reveal().parse::<Recipient>().unwrap_err().to_string();
        assert!(secret_as_recipient.contains("secret key") && !secret_as_recipient.contains(&key.reveal()));
        for wrong in ["", "age1", "age1qqqq", "ssh-ed25519 AAAA", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"] {
            wrong.parse::<Recipient>().unwrap_err();
        }
        let text = format!("# created: today\n# public key: x\n{}\n", key.reveal());
        assert_eq!(Identity::parse_file(&text).unwrap().len(), 1);
        Identity::parse_file("# nothing\n").unwrap_err();
    }

    #[test]
    fn every_length_around_the_piece_comes_back_for_each_of_several_recipients() {
        let (one, two, stranger) =
            (Identity::generate().unwrap(), Identity::generate().unwrap(), Identity::generate().unwrap());
        for length in [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000] {
            let plain: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
            let stored = encrypt(&plain, &[one.recipient(), two.recipient()]);
            for key in [&one, &two] {
                assert!(decrypt(&stored, &[stranger.clone(), key.clone()]).unwrap() == plain, "{length}");
            }
            assert_eq!(decrypt(&stored, std::slice::from_ref(&stranger)), Err(AgeError::NoKeyFits));
        }
    }

    #[test]
    fn any_changed_byte_and_any_missing_end_is_noticed() {
        let key = Identity::generate().unwrap();
        let stored = encrypt(&[7; 70_000], &[key.recipient()]);
        let keys = [key];
        let sampled = (0..400).chain((400..stored.len()).step_by(1_009)).chain([stored.len() - 1]);
        for at in sampled {
            let mut wrong = stored.clone();
            wrong[at] ^= 1;
            assert!(decrypt(&wrong, &keys).is_err(), "a changed byte {at} went unnoticed");
            assert!(decrypt(&stored[..at], &keys).is_err(), "cut off at {at}, unnoticed");
        }
        // Cut exactly between two pieces: what is left is whole pieces, but not the last one.
        let header = stored.len() - (70_000 + 2 * 16);
        assert_eq!(decrypt(&stored[..header + 65_536 + 16], &keys), Err(AgeError::Truncated));
        let mut longer = stored;
        longer.push(0);
        decrypt(&longer, &keys).unwrap_err();
    }
}
