//! Gear hashes: each byte adds a number of its own, and what was added moves up one bit, until after 64 bytes it is gone.
use sha2::{Digest as _, Sha256};

use super::Roll;

#[derive(Debug)]
pub(super) struct Gear([u64; 256]);

impl Gear {
    /// A table that only those can make who know the secret.
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        let mut table = [0; 256];
        for (byte, number) in (0_u8..=255).zip(&mut table) {
            let digest: [u8; 32] = Sha256::new().chain_update(secret).chain_update([byte]).finalize().into();
            *number = digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        Self(table)
    }
}

impl Roll for Gear {
    #[inline(always)]
    fn step(&self, fingerprint: u64, _: u8, comes: u8) -> u64 {
        (fingerprint << 1).wrapping_add(self.0[usize::from(comes)])
    }
}
