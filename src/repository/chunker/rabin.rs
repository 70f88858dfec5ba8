//! Rabin fingerprints, as restic makes them: the bytes of the window, taken as a polynomial over GF(2), modulo another.
use super::{Polynomial, Roll, WINDOW};

#[derive(Debug)]
pub(super) struct Rabin {
    /// What a byte that goes out leaves to be taken away.
    goes: [u64; 256],
    /// What bits that grow out of the fingerprint come back as.
    modulo: [u64; 256],
}

/// Bits of the fingerprint above which a byte would not fit.
const SHIFT: u32 = Polynomial::DEGREE - 8;

impl Rabin {
    pub(super) fn new(polynomial: Polynomial) -> Self {
        let (mut goes, mut modulo) = ([0; 256], [0; 256]);
        for byte in 0..256_u64 {
            let grown = byte << Polynomial::DEGREE;
            modulo[byte as usize] = polynomial.modulo(grown) | grown;
        }
        let append =
            |fingerprint: u64, byte: u64| (fingerprint << 8 | byte) ^ modulo[(fingerprint >> SHIFT) as usize & 255];
        for byte in 0..256_u64 {
            goes[byte as usize] = (1..WINDOW).fold(append(0, byte), |fingerprint, _| append(fingerprint, 0));
        }
        Self { goes, modulo }
    }
}

impl Roll for Rabin {
    #[inline(always)]
    fn step(&self, fingerprint: u64, goes: u8, comes: u8) -> u64 {
        let fingerprint = fingerprint ^ self.goes[usize::from(goes)];
        // A fingerprint has 53 bits, so 8 are left of the shift.
        (fingerprint << 8 | u64::from(comes)) ^ self.modulo[(fingerprint >> SHIFT) as usize & 255]
    }
}
