//! Secrets: where they come from, and that they go nowhere.
use std::{fmt, path::PathBuf, sync::Arc};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// A secret: it cannot be printed, logged or serialised, and it is removed by value from captured output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps `text` secret.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one call that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret comes from. A file or a command's output loses one final line break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// An environment variable of the Rusuban process.
    Env(String),
    /// A file; relative to the home folder.
    File(PathBuf),
    /// A command's standard output: the argument list, run without a shell.
    Command(Vec<String>),
}

/// Reads a secret from where it is; given by `config`, which alone reads the environment.
#[derive(Clone)]
pub struct SecretReader(pub Arc<ReadSecret>);

/// Reads one secret.
pub type ReadSecret = dyn Fn(&SecretSource) -> anyhow::Result<Secret> + Send + Sync;

impl fmt::Debug for SecretReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretReader")
    }
}

/// A value that may be secret: a text, or where to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextOrSecret {
    /// As it stands in the file.
    Text(String),
    /// Read when it is needed, and removed from output.
    Secret(SecretSource),
}

impl TextOrSecret {
    /// Where the secret is, if it is one.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretSource> {
        match self {
            Self::Text(_) => None,
            Self::Secret(source) => Some(source),
        }
    }

    /// The value. A secret may come from a command that takes its time.
    ///
    /// # Errors
    /// When the secret cannot be read.
    pub async fn read(&self, reader: &SecretReader) -> anyhow::Result<Secret> {
        match self {
            Self::Text(text) => Ok(Secret::new(text.as_str())),
            Self::Secret(source) => {
                let (reader, source) = (reader.clone(), source.clone());
                tokio::task::spawn_blocking(move || reader.0(&source)).await?
            }
        }
    }
}

impl Serialize for TextOrSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(serializer),
            Self::Secret(source) => source.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TextOrSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = TextOrSecret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes, or a secret such as `{ file = \"secrets/token\" }`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TextOrSecret, E> {
                Ok(TextOrSecret::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TextOrSecret, A::Error> {
                SecretSource::deserialize(MapAccessDeserializer::new(map)).map(TextOrSecret::Secret)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for TextOrSecret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TextOrSecret".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let secret = generator.subschema_for::<SecretSource>();
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, secret] })
    }
}

/// Removes secrets from text by value.
#[derive(Clone, Debug, Default)]
pub struct Redactor(Vec<Secret>);

impl Redactor {
    /// Removes these. Values shorter than 4 bytes are left alone: removing them would shred every line.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        let mut secrets: Vec<_> = secrets.into_iter().filter(|secret| secret.reveal().len() >= 4).collect();
        // The longest first: a secret may contain another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.reveal().len()));
        Self(secrets)
    }

    /// `text` with each secret replaced by `•••`.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.reveal()) { text.replace(secret.reveal(), "•••") } else { text }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed_and_is_removed_from_text() {
        let secret = Secret::new("hunter22");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        let redactor = Redactor::new([Secret::new("hunter"), secret, Secret::new("ab")]);
        assert_eq!(redactor.clean("password=hunter22 absent"), "password=••• absent");
    }
}
