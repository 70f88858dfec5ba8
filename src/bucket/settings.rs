//! `[bucket.NAME]` in `rusuban.toml`, and the bucket it describes.
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Bucket,
    folder::Folder,
    limited::Limited,
    retrying::{Patience, Retrying},
    s3::{S3, S3Settings},
};
use crate::{
    clock::Clock,
    config::{
        mistake::Problem,
        secret::{SecretReader, SecretSource},
        units::{Size, Span},
    },
};

/// Where objects are kept: a folder, or a bucket on an S3 server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BucketSettings {
    /// A folder; relative to the home folder.
    pub folder: Option<PathBuf>,
    /// A bucket on an S3 server, and a prefix: `backups/host1`.
    pub s3: Option<String>,
    /// The server's address; AWS when absent.
    pub endpoint: Option<String>,
    /// The region that the server expects [default: us-east-1].
    pub region: Option<String>,
    /// The access key; when absent, credentials come from where AWS tools look.
    pub access_key: Option<SecretSource>,
    /// Its secret.
    pub secret_key: Option<SecretSource>,
    /// `https://server/bucket` rather than `https://bucket.server` [default: true when there is an endpoint].
    pub path_style: Option<bool>,
    /// A file of certificates (PEM) to trust instead of the system's; relative to the home folder.
    pub ca: Option<PathBuf>,
    /// At most so many bytes up a second.
    pub upload_limit: Option<Size>,
    /// At most so many bytes down a second.
    pub download_limit: Option<Size>,
    /// An operation that is silent for so long is given up [default: 60s].
    pub timeout: Option<Span>,
    /// How often an operation is tried again when the server cannot be reached or is busy [default: 4].
    pub retries: Option<u32>,
}

impl BucketSettings {
    /// A local folder.
    #[must_use]
    pub fn of_folder(folder: PathBuf) -> Self {
        Self { folder: Some(folder), ..Self::default() }
    }

    /// What only shows when the values are seen together. `key` is where the table is, such as `bucket.home`.
    #[must_use]
    pub fn check(&self, key: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        match (&self.folder, &self.s3) {
            (None, None) => problems.push(
                Problem::new(key, "a bucket needs a place")
                    .hint("write `folder = \"/mnt/nas/backups\"`, or `s3 = \"bucket/prefix\"` with an `endpoint`"),
            ),
            (Some(_), Some(_)) => {
                problems.push(
                    Problem::new(format!("{key}.s3"), "a bucket is a folder or on an S3 server, not both")
                        .hint("remove one of them"),
                );
            }
            (Some(_), None) => {
                let of_s3 = [
                    ("endpoint", self.endpoint.is_some()),
                    ("region", self.region.is_some()),
                    ("access_key", self.access_key.is_some()),
                    ("secret_key", self.secret_key.is_some()),
                    ("path_style", self.path_style.is_some()),
                    ("ca", self.ca.is_some()),
                ];
                for (name, _) in of_s3.into_iter().filter(|(_, set)| *set) {
                    problems.push(Problem::new(
                        format!("{key}.{name}"),
                        format!("`{name}` belongs to an S3 bucket, and this one is a folder"),
                    ));
                }
            }
            (None, Some(place)) => {
                if place.trim_matches('/').is_empty() {
                    problems.push(
                        Problem::new(format!("{key}.s3"), "the bucket's name is missing")
                            .hint("write `s3 = \"bucket/prefix\"`"),
                    );
                }
                if let Some(endpoint) = &self.endpoint
                    && !endpoint.starts_with("http://")
                    && !endpoint.starts_with("https://")
                {
                    problems.push(
                        Problem::new(format!("{key}.endpoint"), format!("`{endpoint}` is no address"))
                            .hint("begin it with `https://` or `http://`"),
                    );
                }
                if self.access_key.is_some() != self.secret_key.is_some() {
                    problems.push(
                        Problem::new(key, "`access_key` and `secret_key` belong together")
                            .hint("give both, or neither: credentials then come from where AWS tools look"),
                    );
                }
            }
        }
        problems
    }

    /// The secrets it names.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        self.access_key.iter().chain(&self.secret_key)
    }

    /// The bucket, with its limits. Nothing is sent yet.
    ///
    /// # Errors
    /// When a secret or the certificates cannot be read.
    pub async fn open(&self, home: &Path, secrets: &SecretReader, clock: &Clock) -> anyhow::Result<Arc<dyn Bucket>> {
        let patience = Patience {
            clock: clock.clone(),
            tries: self.retries.unwrap_or(4).saturating_add(1),
            first_wait: Duration::from_millis(500),
        };
        let silence = self.timeout.map_or(Duration::from_secs(60), |span| span.0);
        let inner: Arc<dyn Bucket> = match (&self.folder, &self.s3) {
            (Some(folder), _) => Arc::new(Folder::new(home.join(folder)).at_home(home)),
            (None, place) => {
                let place = place.as_deref().unwrap_or_default().trim_matches('/');
                let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
                let credentials = match (&self.access_key, &self.secret_key) {
                    (Some(key), Some(secret)) => Some(((secrets.0)(key)?, (secrets.0)(secret)?)),
                    _ => None,
                };
                let read = |file: &PathBuf| {
                    let file = home.join(file);
                    std::fs::read(&file).with_context(|| format!("read the certificates {}", file.display()))
                };
                let settings = S3Settings {
                    bucket: bucket.to_owned(),
                    prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
                    endpoint: self.endpoint.clone(),
                    region: self.region.clone(),
                    path_style: self.path_style.unwrap_or(self.endpoint.is_some()),
                    credentials,
                    certificates: self.ca.as_ref().map(read).transpose()?,
                    silence,
                    patience: patience.clone(),
                };
                Arc::new(S3::new(settings).await?)
            }
        };
        let limited =
            Limited::new(inner, silence, self.upload_limit.map(|size| size.0), self.download_limit.map(|size| size.0));
        Ok(Arc::new(Retrying::new(Arc::new(limited), patience)))
    }
}
