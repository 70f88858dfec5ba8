//! Images: what one is, and making one of a container.
use serde_json::{Value, json};

use super::client::{Engine, EngineError};
use crate::text;

/// All that the engine says of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Image(Value);

/// A snapshot to be made of a container.
#[derive(Clone, Debug)]
pub struct Commit<'a> {
    /// The container's id.
    pub container: &'a str,
    /// Whether the container is frozen meanwhile.
    pub pause: bool,
    /// Who made it and why.
    pub comment: &'a str,
    /// Labels that the image gets beside the container's own.
    pub labels: &'a [(&'a str, String)],
}

impl Image {
    /// The engine's words, all of them.
    #[must_use]
    pub fn raw(&self) -> &Value {
        &self.0
    }

    /// Its digest.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0["Id"].as_str().unwrap_or_default()
    }

    /// The digests of its layers, the lowest first.
    #[must_use]
    pub fn layers(&self) -> Vec<&str> {
        self.0["RootFS"]["Layers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Its names, such as `blog:Mon`.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let names = self.0["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.filter(|name| !name.starts_with("<none>")).collect()
    }

    /// The digests by which registries know it; none of an image that was made here.
    #[must_use]
    pub fn digests(&self) -> Vec<&str> {
        let names = self.0["RepoDigests"].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.filter_map(|name| Some(name.split_once('@')?.1)).collect()
    }

    /// One of its labels.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.0["Config"]["Labels"][name].as_str()
    }

    /// Who made it and why. Unlike a label, an image made of a container does not get that of the image below.
    #[must_use]
    pub fn comment(&self) -> &str {
        self.0["Comment"].as_str().unwrap_or_default()
    }

    /// Bytes of all its layers, unpacked.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0["Size"].as_u64().unwrap_or_default()
    }
}

impl Engine {
    /// An image by its name or id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn image(&self, name: &str) -> Result<Image, EngineError> {
        Ok(Image(self.get(&format!("/images/{name}/json"), &[]).await?))
    }

    /// The ids of images that have this label, `name` or `name=value`; also of those that have no name and are others' parents.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn images_labelled(&self, label: &str) -> Result<Vec<String>, EngineError> {
        let filters = json!({ "label": [label] }).to_string();
        let said = self.get("/images/json", &[("all", "1"), ("filters", &filters)]).await?;
        let ids = said.as_array().into_iter().flatten().filter_map(|image| image["Id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// Makes an image of a container, for as long as it takes. It has no name yet. Returns its id.
    ///
    /// # Errors
    /// When the engine refuses; when the connection breaks, it may still be making it.
    pub async fn commit(&self, commit: &Commit<'_>) -> Result<String, EngineError> {
        let changes: Vec<String> =
            commit.labels.iter().map(|(name, value)| format!("LABEL {}={}", quoted(name), quoted(value))).collect();
        let changes = changes.join("\n");
        let query = [
            ("container", commit.container),
            ("comment", commit.comment),
            ("pause", if commit.pause { "1" } else { "0" }),
            ("changes", &changes),
        ];
        // Without a body the engine takes the container's whole configuration; with one it takes what it merges.
        let said = self.post("/commit", &query, None, None).await?;
        Ok(said["Id"].as_str().unwrap_or_default().to_owned())
    }

    /// Gives an image a name; an image that had it loses it.
    ///
    /// # Errors
    /// When there is no such image, or the name cannot be one.
    pub async fn tag(&self, image: &str, repository: &str, tag: &str) -> Result<(), EngineError> {
        self.post_quick(&format!("/images/{image}/tag"), &[("repo", repository), ("tag", tag)]).await.map(drop)
    }

    /// Takes a name from an image, and the image with it when that was its last; given an id, removes the image.
    /// Nameless images below it stay: they may be somebody's.
    ///
    /// # Errors
    /// When there is none, or a container or another image needs it.
    pub async fn remove_image(&self, name: &str) -> Result<(), EngineError> {
        self.delete(&format!("/images/{name}"), &[("noprune", "1")]).await.map(drop)
    }
}

/// As a Dockerfile wants it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$"))
}

/// The repository in an image's name: `blog` of `blog:Mon`, `host:5000/a/blog` of `host:5000/a/blog@sha256:…`. None of a mere id.
#[must_use]
pub fn repository_of(name: &str) -> Option<&str> {
    let name = name.split('@').next().unwrap_or(name);
    let repository = match name.rsplit_once(':') {
        // A colon before a slash is a port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    let is_id =
        repository == "sha256" || (repository == name && (12..=64).contains(&name.len()) && is_hexadecimal(name));
    (!repository.is_empty() && !is_id).then_some(repository)
}

/// The tag in an image's name; none of a mere id and of one that is fixed to a digest.
#[must_use]
pub fn tag_of(name: &str) -> Option<&str> {
    let repository = repository_of(name).filter(|_| !name.contains('@'))?;
    Some(name[repository.len()..].strip_prefix(':').unwrap_or("latest"))
}

/// The name of what has this SHA-256, as engines write it.
#[must_use]
pub fn digest(sha256: &[u8]) -> String {
    format!("sha256:{}", text::hexadecimal(sha256))
}

/// The beginning of a digest or an id, for people.
#[must_use]
pub fn short_id(id: &str) -> &str {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.get(..12).unwrap_or(digits)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_of_a_name_is_what_stands_before_its_tag() {
        for (name, expected, tag) in [
            ("blog", Some("blog"), Some("latest")),
            ("blog:Mon", Some("blog"), Some("Mon")),
            ("lscr.io/linuxserver/mariadb:11", Some("lscr.io/linuxserver/mariadb"), Some("11")),
            ("localhost:5000/blog", Some("localhost:5000/blog"), Some("latest")),
            ("localhost:5000/blog:1@sha256:ab", Some("localhost:5000/blog"), None),
            ("sha256:0123456789abcdef", None, None),
            ("0123456789ab", None, None),
            ("", None, None),
        ] {
            assert_eq!(repository_of(name), expected, "{name}");
            assert_eq!(tag_of(name), tag, "{name}");
        }
    }

    #[test]
    fn labels_are_quoted_for_a_dockerfile() {
        assert_eq!(quoted(r#"a "b" \ $c"#), r#""a \"b\" \\ \$c""#);
    }
}
