//! Images from their registry.
use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::Value;

use super::client::{Engine, EngineError};
use crate::http;

/// Bytes of an image's layers that are on their way: how many are here, and how many there are, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Here.
    pub done: u64,
    /// In all.
    pub total: u64,
}

impl Engine {
    /// Fetches what a name such as `blog:1` means at its registry today, for as long as it takes. Dropped, the engine gives it up.
    ///
    /// # Errors
    /// When the registry does not answer, has no such image or wants a password; and half way, when the connection breaks.
    pub async fn pull(
        &self,
        repository: &str,
        tag: &str,
        mut progress: impl FnMut(Pulled) + Send,
    ) -> Result<(), EngineError> {
        let query = [("fromImage", repository), ("tag", tag)];
        let response = self.open(Method::POST, "/images/create", &query, None).await?;
        let (mut pieces, mut rest, mut layers) = (response.bytes_stream(), Vec::new(), Layers::default());
        loop {
            let piece = pieces.next().await.transpose().map_err(|error| EngineError::Broken(http::why(error)))?;
            let is_over = piece.is_none();
            rest.extend_from_slice(&piece.unwrap_or_default());
            let whole = if is_over { rest.len() } else { rest.iter().rposition(|byte| *byte == b'\n').unwrap_or(0) };
            for line in rest.drain(..whole).collect::<Vec<u8>>().split(|byte| *byte == b'\n') {
                // The head says 200 before the registry was asked.
                let said: Value = serde_json::from_slice(line).unwrap_or_default();
                if let Some(message) = said["error"].as_str() {
                    return Err(EngineError::Refused { status: 200, message: message.to_owned() });
                }
                if layers.hear(&said) {
                    progress(layers.sum());
                }
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// The digest of what a name means at its registry today. Nothing is fetched.
    ///
    /// # Errors
    /// When the registry does not answer, has no such image or wants a password.
    pub async fn digest_at_registry(&self, name: &str) -> Result<String, EngineError> {
        let said = self.get(&format!("/distribution/{name}/json"), &[]).await?;
        Ok(said["Descriptor"]["digest"].as_str().unwrap_or_default().to_owned())
    }
}

/// How far each layer has come.
#[derive(Default)]
struct Layers(BTreeMap<String, Pulled>);

impl Layers {
    /// Whether it says something new.
    fn hear(&mut self, said: &Value) -> bool {
        let Some(layer) = said["id"].as_str() else { return false };
        match said["status"].as_str() {
            Some("Downloading") => {
                let number = |name: &str| said["progressDetail"][name].as_u64().unwrap_or_default();
                let (done, total) = (number("current"), number("total"));
                self.0.insert(layer.to_owned(), Pulled { done, total: total.max(done) });
                true
            }
            Some("Download complete") => self.0.get_mut(layer).is_some_and(|pulled| {
                pulled.done = pulled.total;
                true
            }),
            _ => false,
        }
    }

    fn sum(&self) -> Pulled {
        let add = |sum: Pulled, one: &Pulled| Pulled {
            done: sum.done.saturating_add(one.done),
            total: sum.total.saturating_add(one.total),
        };
        self.0.values().fold(Pulled::default(), add)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_here_of_all_layers_is_added_up() {
        let mut layers = Layers::default();
        let downloading = |layer: &str, current, total| json!({ "status": "Downloading", "id": layer, "progressDetail": { "current": current, "total": total } });
        assert!(!layers.hear(&json!({ "status": "Pulling from blog", "id": "1" })));
        assert!(!layers.hear(&json!({ "status": "Download complete", "id": "of old" })));
        assert!(layers.hear(&downloading("a", 1, 10)));
        assert!(layers.hear(&downloading("b", 5, 0)));
        assert_eq!(layers.sum(), Pulled { done: 6, total: 15 });
        assert!(layers.hear(&json!({ "status": "Download complete", "id": "a" })));
        assert_eq!(layers.sum(), Pulled { done: 15, total: 15 });
        assert!(!layers.hear(&json!(null)));
    }
}
