//! Whether settings are still those that led to a stop, without keeping them: a slow digest with a salt of its own.
use std::fmt::Write as _;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::{config::secret::SecretReader, dyndns::Setting, text};

/// A salt.
pub(super) fn salt() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("ask the system for a random number")?;
    Ok(text::hexadecimal(&bytes))
}

/// A digest of a provider's settings without their secrets, to see whether it is another one.
pub(super) fn quick(provider: &Setting, salt: &str) -> String {
    text::hexadecimal(&Sha256::digest(format!("{salt}{provider:?}")))
}

/// The digest of a provider's settings and of the secrets that they name.
///
/// # Errors
/// When a secret cannot be read.
pub(super) async fn digest(provider: &Setting, salt: &str, secrets: &SecretReader) -> anyhow::Result<String> {
    let mut all = format!("{provider:?}");
    let (sources, secrets, salt) = (provider.provider().secrets(), secrets.clone(), salt.to_owned());
    let made = tokio::task::spawn_blocking(move || {
        for source in sources {
            let secret = secrets.0(&source)?;
            // With its length: two secrets are not one that is written otherwise.
            let _ = write!(all, "\0{}\0{}", secret.reveal().len(), secret.reveal());
        }
        let parameters = scrypt::Params::new(14, 8, 1).map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut made = [0; 32];
        scrypt::scrypt(all.as_bytes(), salt.as_bytes(), &parameters, &mut made)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        anyhow::Ok(text::hexadecimal(&made))
    });
    made.await?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::secret::Secret;

    #[tokio::test]
    async fn a_digest_changes_with_settings_and_secrets_and_salt() {
        let reader = |value: &'static str| SecretReader(Arc::new(move |_| Ok(Secret::new(value))));
        let read = |user: &str| -> Setting {
            toml::from_str::<std::collections::BTreeMap<String, Setting>>(&format!(
                "[provider.mydns]\nuser = '{user}'\npassword = {{ env = 'X' }}"
            ))
            .unwrap()
            .remove("provider")
            .unwrap()
        };
        let one = digest(&read("mydns1"), "salt", &reader("word")).await.unwrap();
        assert_eq!(one, digest(&read("mydns1"), "salt", &reader("word")).await.unwrap());
        for other in [
            digest(&read("mydns2"), "salt", &reader("word")).await.unwrap(),
            digest(&read("mydns1"), "salt", &reader("words")).await.unwrap(),
            digest(&read("mydns1"), "pepper", &reader("word")).await.unwrap(),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(one.len(), 64);
    }
}
