//! Sealing: AES-256 in counter mode, authenticated by Poly1305-AES, as the restic format does it.
//!
//! What is sealed is a nonce of 16 bytes, as many bytes as were given, and a code of 16 bytes by which a change shows.
use aes::{
    Aes128, Aes256,
    cipher::{BlockCipherEncrypt as _, KeyInit as _, KeyIvInit as _, StreamCipher as _},
};
use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ctr::Ctr128BE;
use poly1305::Poly1305;
use serde::{Deserialize, Serialize};

/// Bytes that sealing adds.
pub const SEAL: usize = NONCE + CODE;
const NONCE: usize = 16;
const CODE: usize = 16;

/// What is sealed was changed, or sealed with another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was changed, or sealed with another key")]
pub struct Tampered;

/// The keys that seal and open: those of a repository, or those made of a password.
#[derive(Clone)]
pub struct Key {
    encrypt: [u8; 32],
    mac: [u8; 16],
    /// The part of the code's key that stays the same; its forbidden bits are cleared.
    r: [u8; 16],
}

/// A key as the restic format writes it.
#[derive(Serialize, Deserialize)]
struct Written {
    mac: WrittenMac,
    encrypt: String,
}

#[derive(Serialize, Deserialize)]
struct WrittenMac {
    k: String,
    r: String,
}

impl Key {
    /// From 64 bytes: 32 to encrypt, 32 to authenticate.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut key = Self { encrypt: [0; 32], mac: [0; 16], r: [0; 16] };
        key.encrypt.copy_from_slice(&bytes[..32]);
        key.mac.copy_from_slice(&bytes[32..48]);
        key.r.copy_from_slice(&bytes[48..]);
        for (at, byte) in key.r.iter_mut().enumerate() {
            match at {
                3 | 7 | 11 | 15 => *byte &= 15,
                4 | 8 | 12 => *byte &= 252,
                _ => {}
            }
        }
        key
    }

    /// A new one.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn random() -> anyhow::Result<Self> {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// As the restic format writes it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let text = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let written =
            Written { mac: WrittenMac { k: text(&self.mac), r: text(&self.r) }, encrypt: text(&self.encrypt) };
        // Three strings cannot fail to be written.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Reads what [`Key::to_json`] wrote.
    ///
    /// # Errors
    /// When it is no key.
    pub fn from_json(json: &[u8]) -> anyhow::Result<Self> {
        let written: Written = serde_json::from_slice(json)?;
        let bytes = |text: &str| BASE64_STANDARD.decode(text);
        let parts = [bytes(&written.encrypt)?, bytes(&written.mac.k)?, bytes(&written.mac.r)?].concat();
        let parts: [u8; 64] = parts.try_into().map_err(|_| anyhow::anyhow!("a part of the key has a wrong length"))?;
        Ok(Self::from_bytes(&parts))
    }

    /// A secret that only those know who have the key, for another purpose than sealing.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        super::Id::of(&[purpose.as_bytes(), &self.encrypt, &self.mac].concat()).0
    }

    /// Seals what is in `buffer` behind `from` in its place: a nonce is put in front of it, and a code behind it.
    /// The nonce's room must be there already, as [`Key::room`] makes it.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn seal_in_place(&self, buffer: &mut Vec<u8>, from: usize) -> anyhow::Result<()> {
        buffer.resize(buffer.len() + CODE, 0);
        self.seal_slice(&mut buffer[from..])
    }

    /// Seals what is in `buffer` between the room for the nonce and the room for the code, 16 bytes each.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn seal_slice(&self, buffer: &mut [u8]) -> anyhow::Result<()> {
        let end = buffer.len().checked_sub(CODE).filter(|end| *end >= NONCE).context("no room for the seal")?;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce)?;
        let (head, rest) = buffer.split_at_mut(NONCE);
        let (text, code) = rest.split_at_mut(end - NONCE);
        head.copy_from_slice(&nonce);
        Ctr128BE::<Aes256>::new(&self.encrypt.into(), &nonce.into()).apply_keystream(text);
        code.copy_from_slice(&self.code(&nonce, text));
        Ok(())
    }

    /// Makes room for the nonce at the end of `buffer`: what is sealed comes behind it.
    pub fn room(buffer: &mut Vec<u8>) {
        buffer.resize(buffer.len() + NONCE, 0);
    }

    /// Seals `plain`.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn seal(&self, plain: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut sealed = Vec::with_capacity(plain.len() + SEAL);
        Self::room(&mut sealed);
        sealed.extend_from_slice(plain);
        self.seal_in_place(&mut sealed, 0)?;
        Ok(sealed)
    }

    /// Opens what is sealed, in its place: the bytes that it holds.
    ///
    /// # Errors
    /// [`Tampered`].
    pub fn open_in_place<'b>(&self, sealed: &'b mut [u8]) -> Result<&'b mut [u8], Tampered> {
        if sealed.len() < SEAL {
            return Err(Tampered);
        }
        let (nonce, rest) = sealed.split_at_mut(NONCE);
        let (text, code) = rest.split_at_mut(rest.len() - CODE);
        let nonce: [u8; NONCE] = (&*nonce).try_into().map_err(|_| Tampered)?;
        // Compared without telling by the time it takes how much of it is right.
        let differs =
            self.code(&nonce, text).iter().zip(&*code).fold(0, |differs, (one, other)| differs | (one ^ other));
        if differs != 0 {
            return Err(Tampered);
        }
        Ctr128BE::<Aes256>::new(&self.encrypt.into(), &nonce.into()).apply_keystream(text);
        Ok(text)
    }

    /// Opens what is sealed.
    ///
    /// # Errors
    /// [`Tampered`].
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Tampered> {
        let mut copy = sealed.to_vec();
        let count = self.open_in_place(&mut copy)?.len();
        copy.truncate(NONCE + count);
        copy.drain(..NONCE);
        Ok(copy)
    }

    fn code(&self, nonce: &[u8; NONCE], text: &[u8]) -> [u8; CODE] {
        let mut block = (*nonce).into();
        Aes128::new(&self.mac.into()).encrypt_block(&mut block);
        let mut key = [0; 32];
        key[..16].copy_from_slice(&self.r);
        key[16..].copy_from_slice(&block);
        Poly1305::new(&key.into()).compute_unpadded(text).into()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_again_and_each_changed_bit_shows() {
        let key = Key::random().unwrap();
        for length in [0, 1, 15, 16, 17, 1000] {
            let plain: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let sealed = key.seal(&plain).unwrap();
            assert_eq!(sealed.len(), plain.len() + SEAL);
            assert_eq!(key.open(&sealed).unwrap(), plain);
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(key.open(&changed), Err(Tampered));
            }
            assert_eq!(key.open(&sealed[1..]), Err(Tampered));
        }
        let read = Key::from_json(&key.to_json()).unwrap();
        assert_eq!(read.open(&key.seal(b"x").unwrap()).unwrap(), b"x");
    }
}
