//! Volumes: what one is, and where its files are.
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::client::{Engine, EngineError};

/// All that the engine says of a volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume(Value);

impl Volume {
    /// From the engine's words.
    #[must_use]
    pub fn of(inspected: Value) -> Self {
        Self(inspected)
    }

    /// The engine's words, all of them.
    #[must_use]
    pub fn raw(&self) -> &Value {
        &self.0
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0["Name"].as_str().unwrap_or_default()
    }

    /// What keeps it: `local`, or a plugin.
    #[must_use]
    pub fn driver(&self) -> &str {
        self.0["Driver"].as_str().unwrap_or_default()
    }

    /// Where it is mounted on the engine's host.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        Path::new(self.0["Mountpoint"].as_str().unwrap_or_default())
    }

    /// The folder on the engine's host that holds its files whether a container uses it or not: its own, or the one that it is
    /// another name of.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        let is_bind = self.option("o").split(',').any(|option| matches!(option, "bind" | "rbind"));
        match (self.driver(), self.mounted_kind()) {
            ("local", None) => Some(self.mountpoint().to_owned()),
            ("local", Some(_)) if is_bind => Some(self.option("device").into()),
            _ => None,
        }
    }

    /// What the engine mounts for it while a container uses it: `nfs`, `tmpfs` …; none when it is a plain folder.
    #[must_use]
    pub fn mounted_kind(&self) -> Option<&str> {
        let has_options = self.0["Options"].as_object().is_some_and(|options| {
            // Limits of its size do not make it a mount.
            options.keys().any(|key| matches!(key.as_str(), "type" | "device" | "o"))
        });
        has_options.then(|| Some(self.option("type")).filter(|kind| !kind.is_empty()).unwrap_or("none"))
    }

    /// Whether nobody gave it a name: it was made for one container, and has 64 digits.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.name().len() == 64 && self.name().bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    fn option(&self, key: &str) -> &str {
        self.0["Options"][key].as_str().unwrap_or_default()
    }
}

impl Engine {
    /// All volumes, whether a container uses them or not, ordered by name.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn volumes(&self) -> Result<Vec<Volume>, EngineError> {
        let said = self.get("/volumes", &[]).await?;
        let mut all: Vec<Volume> = said["Volumes"].as_array().into_iter().flatten().cloned().map(Volume::of).collect();
        all.sort_by(|one, other| one.name().cmp(other.name()));
        Ok(all)
    }

    /// A volume by its name.
    ///
    /// # Errors
    /// When there is none.
    pub async fn volume(&self, name: &str) -> Result<Volume, EngineError> {
        Ok(Volume(self.get(&format!("/volumes/{name}"), &[]).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_files_lie_in_its_own_folder_or_in_the_one_it_is_another_name_of() {
        let point = "/var/lib/docker/volumes/x/_data";
        for (driver, options, folder, kind) in [
            ("local", "null", Some(point), None),
            ("local", "{}", Some(point), None),
            ("local", r#"{"size": "1G"}"#, Some(point), None),
            ("local", r#"{"type": "none", "o": "bind", "device": "/srv/x"}"#, Some("/srv/x"), Some("none")),
            ("local", r#"{"type": "nfs", "o": "addr=nas,rw", "device": ":/x"}"#, None, Some("nfs")),
            ("local", r#"{"type": "tmpfs", "device": "tmpfs"}"#, None, Some("tmpfs")),
            ("rclone", "{}", None, None),
        ] {
            let said =
                format!(r#"{{"Name": "x", "Driver": "{driver}", "Mountpoint": "{point}", "Options": {options}}}"#);
            let volume = Volume::of(serde_json::from_str(&said).unwrap());
            assert_eq!(volume.folder().as_deref(), folder.map(Path::new), "{said}");
            assert_eq!(volume.mounted_kind(), kind, "{said}");
        }
    }
}
