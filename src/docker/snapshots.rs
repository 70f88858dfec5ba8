//! Snapshots: images that Rusuban made of containers, and what they say of themselves.
use chrono::{DateTime, Utc};

use super::{
    client::{Engine, EngineError},
    image::Image,
};

/// Labels of a snapshot. An image that somebody makes of a container which came from a snapshot has them too: only the
/// comment tells whose it is.
pub mod label {
    /// How all of them begin.
    pub const ALL: &str = "rusuban.snapshot.";
    /// Which container.
    pub const CONTAINER: &str = "rusuban.snapshot.container";
    /// By which job.
    pub const JOB: &str = "rusuban.snapshot.job";
    /// In which run.
    pub const RUN: &str = "rusuban.snapshot.run";
    /// When, as RFC 3339.
    pub const AT: &str = "rusuban.snapshot.at";
    /// The names that it was given: `blog:Mon blog:Jan`.
    pub const NAMES: &str = "rusuban.snapshot.names";
    /// This one and no other.
    pub const ID: &str = "rusuban.snapshot.id";
}

/// How the comment of a snapshot begins.
const COMMENT: &str = "rusuban: ";

/// An image that Rusuban made of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The image's digest.
    pub id: String,
    /// The container's name.
    pub container: String,
    /// The job that made it.
    pub job: String,
    /// When.
    pub at: DateTime<Utc>,
    /// The names that it has now, whoever gave them.
    pub names: Vec<String>,
    /// Those of them that we gave.
    pub own_names: Vec<String>,
    /// Bytes of all its layers, unpacked.
    pub bytes: u64,
    /// The digests of its layers.
    pub layers: Vec<String>,
}

impl Snapshot {
    /// What an image says, if it is a snapshot.
    #[must_use]
    pub fn of(image: &Image) -> Option<Self> {
        if !image.comment().starts_with(COMMENT) {
            return None;
        }
        let names: Vec<String> = image.names().into_iter().map(str::to_owned).collect();
        let given: Vec<&str> = image.label(label::NAMES)?.split(' ').collect();
        Some(Self {
            id: image.id().to_owned(),
            container: image.label(label::CONTAINER)?.to_owned(),
            job: image.label(label::JOB)?.to_owned(),
            at: DateTime::parse_from_rfc3339(image.label(label::AT)?).ok()?.to_utc(),
            own_names: names.iter().filter(|name| given.contains(&name.as_str())).cloned().collect(),
            names,
            bytes: image.bytes(),
            layers: image.layers().into_iter().map(str::to_owned).collect(),
        })
    }

    /// The comment of a snapshot of `container` by `job`.
    #[must_use]
    pub fn comment(container: &str, job: &str) -> String {
        format!("{COMMENT}{container}, by the job {job}")
    }
}

impl Engine {
    /// The snapshots with this label, the newest first.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn snapshots(&self, label: &str, value: &str) -> Result<Vec<Snapshot>, EngineError> {
        let mut snapshots = Vec::new();
        for id in self.images_labelled(&format!("{label}={value}")).await? {
            match self.image(&id).await {
                Ok(image) => snapshots.extend(Snapshot::of(&image)),
                // Somebody has removed it meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        snapshots.sort_by(|one, other| other.at.cmp(&one.at).then_with(|| one.id.cmp(&other.id)));
        Ok(snapshots)
    }
}
