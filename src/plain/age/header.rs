//! The header of an age file: the file's own key, wrapped once for each recipient, and a seal over all of it.
use std::io::{self, Read};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, aead::Aead};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{AgeError, Identity, Recipient, random};

const VERSION: &str = "age-encryption.org/v1";
const WRAP: &[u8] = b"age-encryption.org/v1/X25519";
/// Longer headers are refused: ours have about 100 bytes a recipient.
const LONGEST: usize = 1 << 20;

/// The file's own key.
pub(super) type FileKey = [u8; 16];

/// A new file key and the header that gives it to `recipients`.
pub(super) fn write(recipients: &[Recipient]) -> Result<(FileKey, Vec<u8>), AgeError> {
    let file_key = random::<16>()?;
    let mut header = format!("{VERSION}\n");
    for recipient in recipients {
        let ephemeral = StaticSecret::from(random::<32>()?);
        let share = PublicKey::from(&ephemeral);
        let shared = ephemeral.diffie_hellman(&recipient.0);
        if !shared.was_contributory() {
            return Err(AgeError::Key(format!("`{recipient}` is not a usable key")));
        }
        let wrapped = cipher(shared.as_bytes(), &share, &recipient.0)
            .encrypt(&[0; 12].into(), file_key.as_slice())
            .map_err(|_| AgeError::Key("a file key could not be wrapped".into()))?;
        // 32 bytes: one line of 43 characters, short of the 64 at which a line would have to end.
        header.push_str(&format!("-> X25519 {}\n{}\n", BASE64.encode(share.as_bytes()), BASE64.encode(wrapped)));
    }
    header.push_str("---");
    let seal = seal(&file_key, header.as_bytes()).finalize().into_bytes();
    header.push_str(&format!(" {}\n", BASE64.encode(seal)));
    Ok((file_key, header.into_bytes()))
}

/// Reads a header to its end and unwraps the file's key with one of `identities`.
pub(super) fn read(mut from: impl Read, identities: &[Identity]) -> io::Result<FileKey> {
    let mut sealed = Vec::new();
    let version = line(&mut from, &mut sealed)?;
    if version != VERSION.as_bytes() {
        return Err(AgeError::NotAge("it does not begin with `age-encryption.org/v1`").into());
    }
    let mut file_key = None;
    let mut stanza: Option<Stanza> = None;
    loop {
        let before = sealed.len();
        let found = line(&mut from, &mut sealed)?;
        let text = std::str::from_utf8(&found).map_err(|_| AgeError::NotAge("its header is not text"))?;
        if let Some(mac) = text.strip_prefix("--- ") {
            if stanza.is_some() {
                return Err(AgeError::NotAge("a recipient's lines end too early").into());
            }
            let file_key = file_key.ok_or(AgeError::NoKeyFits)?;
            sealed.truncate(before + 3);
            let mac = decode(mac)?;
            seal(&file_key, &sealed).verify_slice(&mac).map_err(|_| AgeError::HeaderChanged)?;
            return Ok(file_key);
        }
        if let Some(arguments) = text.strip_prefix("-> ") {
            if stanza.is_some() {
                return Err(AgeError::NotAge("a recipient's lines end too early").into());
            }
            stanza = Some(Stanza { arguments: arguments.split(' ').map(str::to_owned).collect(), body: String::new() });
            continue;
        }
        let Some(current) = &mut stanza else { return Err(AgeError::NotAge("a line that belongs to nothing").into()) };
        if text.len() > 64 {
            return Err(AgeError::NotAge("a line of its header is too long").into());
        }
        current.body.push_str(text);
        // The first line shorter than 64 characters is a recipient's last.
        if text.len() < 64
            && let Some(whole) = stanza.take()
            && let Some(key) = whole.unwrap(identities)?
        {
            file_key = file_key.or(Some(key));
        }
    }
}

/// What is written for one recipient. Those of other kinds than X25519 are passed over.
struct Stanza {
    arguments: Vec<String>,
    body: String,
}

impl Stanza {
    fn unwrap(&self, identities: &[Identity]) -> Result<Option<FileKey>, AgeError> {
        let body = decode(&self.body)?;
        let [kind, share] = self.arguments.as_slice() else { return Ok(None) };
        if kind != "X25519" {
            return Ok(None);
        }
        let wrong = AgeError::NotAge("a recipient's key has the wrong length");
        let share: [u8; 32] = decode(share)?.try_into().map_err(|_| wrong.clone())?;
        if body.len() != 32 {
            return Err(wrong);
        }
        let share = PublicKey::from(share);
        for identity in identities {
            let shared = identity.0.diffie_hellman(&share);
            if !shared.was_contributory() {
                return Err(AgeError::NotAge("a recipient's key is a trap"));
            }
            let opened = cipher(shared.as_bytes(), &share, &identity.recipient().0)
                .decrypt(&[0; 12].into(), body.as_slice())
                .ok()
                .and_then(|key| FileKey::try_from(key).ok());
            if opened.is_some() {
                return Ok(opened);
            }
        }
        Ok(None)
    }
}

/// One line without its end, byte by byte: what follows the header must stay unread. `from` is buffered.
fn line(from: &mut impl Read, all: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut found = Vec::new();
    let mut byte = [0];
    loop {
        match from.read(&mut byte)? {
            0 if all.is_empty() => return Err(AgeError::NotAge("it does not begin with an age header").into()),
            0 => return Err(AgeError::Truncated.into()),
            _ => {}
        }
        all.push(byte[0]);
        if byte[0] == b'\n' {
            return Ok(found);
        }
        found.push(byte[0]);
        if all.len() > LONGEST || (all.len() == found.len() && found.len() > VERSION.len()) {
            return Err(AgeError::NotAge("it does not begin with an age header").into());
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, AgeError> {
    BASE64.decode(text).map_err(|_| AgeError::NotAge("its header is not well-formed"))
}

fn cipher(shared: &[u8; 32], share: &PublicKey, recipient: &PublicKey) -> ChaCha20Poly1305 {
    let salt = [share.as_bytes().as_slice(), recipient.as_bytes()].concat();
    ChaCha20Poly1305::new(&derive(&salt, shared, WRAP).into())
}

fn seal(file_key: &FileKey, header: &[u8]) -> Hmac<Sha256> {
    let key = derive(&[], file_key, b"header");
    // The key has the length of a block of the hash or less: HMAC takes it as it is.
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&padded(&key).into());
    mac.update(header);
    mac
}

/// A key filled up with zeros to the hash's block, as HMAC itself does it.
fn padded(key: &[u8; 32]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    block
}

/// HKDF with SHA-256.
pub(super) fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    let hkdf = Hkdf::<Sha256>::new(Some(salt), secret);
    // Only lengths above 8,160 bytes are refused.
    let _ = hkdf.expand(info, &mut key);
    key
}
