//! What a container can be taken back to.
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    client::{Engine, EngineError},
    container::Container,
    image::{Image, repository_of},
    snapshots::label,
};

/// An image to which a container can be rolled back.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The image.
    pub image: Image,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// Whether it was made of this very container; else it only has the name of the container's image.
    pub is_of_container: bool,
}

impl Target {
    /// Its tags; of an image that is no snapshot of the container, those under `repository`, and its other names as they are.
    #[must_use]
    pub fn tags(&self, repository: Option<&str>) -> Vec<&str> {
        let tag = |name| match self.is_of_container || repository_of(name) == repository {
            true => name.rsplit_once(':').map_or(name, |(_, tag)| tag),
            false => name,
        };
        self.image.names().into_iter().map(tag).collect()
    }

    /// One of its names, or its digest.
    #[must_use]
    pub fn name(&self) -> &str {
        self.image.names().first().copied().unwrap_or(self.image.id())
    }
}

impl Engine {
    /// What a container can be rolled back to, the newest first: images that were made of it, and those under the name of the
    /// image that it was created from.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn targets(&self, container: &Container) -> Result<Vec<Target>, EngineError> {
        let own = format!("{}={}", label::CONTAINER, container.name());
        let mut ids = self.images_labelled(&own).await?;
        if let Some(repository) = repository_of(container.image()) {
            let filters = json!({ "reference": [repository] }).to_string();
            let said = self.get("/images/json", &[("filters", &filters)]).await?;
            ids.extend(
                said.as_array().into_iter().flatten().filter_map(|image| Some(image["Id"].as_str()?.to_owned())),
            );
        }
        ids.sort();
        ids.dedup();
        let mut found = Vec::new();
        for id in ids {
            match self.image(&id).await {
                Ok(image) => found.push(target(image, container.name())),
                // It was removed meanwhile.
                Err(EngineError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|target| std::cmp::Reverse(target.at));
        Ok(found)
    }
}

fn target(image: Image, container: &str) -> Target {
    let time = |text: &str| text.parse::<DateTime<Utc>>().ok();
    let created = image.raw().get("Created").and_then(Value::as_str).and_then(time);
    let at = image.label(label::AT).and_then(time).or(created).unwrap_or_default();
    let is_of_container = image.label(label::CONTAINER) == Some(container);
    Target { image, at, is_of_container }
}
