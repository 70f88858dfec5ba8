//! An S3 bucket and prefix.
//!
//! Bodies are sent from memory only: their SHA-256 is then part of the signature, on plain http too. Streamed bodies with
//! trailing checksums, the SDK's default, are refused by Garage and by older Ceph; so checksums are sent "when required". AWS
//! requires one where objects are locked: there each body's MD5 goes with it, which every server knows.
use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::list_objects_v2::ListObjectsV2Output,
    primitives::ByteStream,
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use md5::{Digest as _, Md5};

use super::{
    Body, Bucket, BucketError, Object, Put, Result, Upload,
    keeping::{ObjectLock, Purged, Versions},
    limited::{time_to_send, within},
    retrying::Patience,
};
use crate::config::secret::Secret;

mod explain;
mod upload;
mod versions;

use explain::{explain, root_cause};

/// What is needed to reach a bucket.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// The bucket's name.
    pub bucket: String,
    /// Before each key; empty, or ending in `/`.
    pub prefix: String,
    /// The server; AWS itself when absent.
    pub endpoint: Option<String>,
    /// The region that signatures name.
    pub region: Option<String>,
    /// `https://server/bucket/key` rather than `https://bucket.server/key`.
    pub path_style: bool,
    /// The key and its secret; the usual AWS chain when absent.
    pub credentials: Option<(Secret, Secret)>,
    /// Certificates (PEM) to trust instead of the system's.
    pub certificates: Option<Vec<u8>>,
    /// A request that is silent for so long is given up.
    pub silence: Duration,
    /// How patient to be with each part of an upload, and with each page of a listing.
    pub patience: Patience,
}

/// A bucket on an S3 server.
#[derive(Clone)]
pub struct S3 {
    client: Client,
    bucket: String,
    prefix: String,
    description: String,
    server: String,
    silence: Duration,
    patience: Patience,
    /// The server has said that it wants each body's MD5.
    wants_md5: Arc<AtomicBool>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

impl S3 {
    /// A bucket by its settings. Nothing is sent yet.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub async fn new(settings: S3Settings) -> anyhow::Result<Self> {
        let trust = match settings.certificates {
            Some(pem) => TrustStore::empty().with_pem_certificate(pem),
            None => TrustStore::default(),
        };
        let tls = TlsContext::builder().with_trust_store(trust).build()?;
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https();
        let timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_secs(10)).build();
        let mut config = match settings.credentials {
            Some((key, secret)) => {
                let region = settings.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
                aws_sdk_s3::Config::builder()
                    .behavior_version(BehaviorVersion::latest())
                    .region(Region::new(region))
                    .credentials_provider(Credentials::new(key.reveal(), secret.reveal(), None, None, "settings"))
            }
            None => {
                let mut chain = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
                if let Some(region) = settings.region.clone() {
                    chain = chain.region(Region::new(region));
                }
                aws_sdk_s3::config::Builder::from(&chain.load().await)
            }
        };
        config = config
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled())
            // A reader may be slow on purpose; silence is measured by `limited`.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .force_path_style(settings.path_style);
        config.set_endpoint_url(settings.endpoint.clone());
        let place = format!("{}/{}", settings.bucket, settings.prefix);
        let server = settings.endpoint.as_deref().unwrap_or("AWS");
        Ok(Self {
            client: Client::from_conf(config.build()),
            description: format!("s3 {} at {server}", place.trim_end_matches('/')),
            bucket: settings.bucket,
            prefix: settings.prefix,
            server: server.to_owned(),
            silence: settings.silence,
            patience: settings.patience,
            wants_md5: Arc::default(),
        })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Waits for the answer to a request that is about `key` and carries so many bytes.
    async fn ask<T, E>(
        &self,
        key: &str,
        bytes: usize,
        request: impl Future<Output = std::result::Result<T, SdkError<E>>>,
    ) -> Result<T>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        self.ask_within(time_to_send(self.silence, bytes), key, request).await
    }

    /// The same, with a time limit of its own.
    async fn ask_within<T, E>(
        &self,
        limit: Duration,
        key: &str,
        request: impl Future<Output = std::result::Result<T, SdkError<E>>>,
    ) -> Result<T>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        within(limit, async { request.await.map_err(|error| explain(&error, key, &self.server)) }).await
    }

    /// Sends a body with the request that is made for its MD5, which is given where the server wants it.
    async fn send<T, E, F>(&self, key: &str, body: &Bytes, request: impl Fn(Option<String>) -> F) -> Result<T>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = std::result::Result<T, SdkError<E>>>,
    {
        let md5 = || BASE64_STANDARD.encode(Md5::digest(body));
        let wanted = self.wants_md5.load(Ordering::Relaxed);
        match self.ask(key, body.len(), request(wanted.then(md5))).await {
            Err(BucketError::Other(text)) if !wanted && text.contains("Content-MD5") => {
                self.wants_md5.store(true, Ordering::Relaxed);
                self.ask(key, body.len(), request(Some(md5()))).await
            }
            sent => sent,
        }
    }

    async fn page(&self, prefix: &str, delimiter: Option<&str>, next: Option<&str>) -> Result<ListObjectsV2Output> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(self.key(prefix));
        let request = request.set_delimiter(delimiter.map(str::to_owned));
        self.ask(prefix, 0, request.set_continuation_token(next.map(str::to_owned)).send()).await
    }

    /// The objects of a page, and the token of the next.
    fn objects(&self, page: ListObjectsV2Output) -> (Vec<Object>, Option<String>) {
        let objects = page.contents.unwrap_or_default().into_iter().filter_map(|object| {
            let key = object.key.as_deref()?.strip_prefix(&self.prefix)?.to_owned();
            Some(Object { key, size: size(object.size), modified: moment(object.last_modified.as_ref()) })
        });
        (objects.collect(), page.next_continuation_token)
    }
}

fn moment(at: Option<&aws_sdk_s3::primitives::DateTime>) -> DateTime<Utc> {
    at.and_then(|at| DateTime::from_timestamp(at.secs(), at.subsec_nanos())).unwrap_or_default()
}

fn size(length: Option<i64>) -> u64 {
    length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0)
}

#[async_trait]
impl Bucket for S3 {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn server(&self) -> Option<String> {
        let url = reqwest::Url::parse(&self.server).ok()?;
        Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
    }

    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()> {
        let request = |md5| {
            let request = self.client.put_object().bucket(&self.bucket).key(self.key(key));
            let request = request.set_if_none_match((put == Put::IfAbsent).then(|| "*".to_owned()));
            request.set_content_md5(md5).body(ByteStream::from(body.clone())).send()
        };
        self.send(key, &body, request).await.map(drop)
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let request = self.client.create_multipart_upload().bucket(&self.bucket).key(self.key(key));
        let begun = self.ask(key, 0, request.send()).await?;
        let id =
            begun.upload_id.ok_or_else(|| BucketError::Other(format!("{key}: the server gave the upload no id")))?;
        Ok(Box::new(upload::S3Upload::new(self.clone(), key, id)))
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(self.key(key)).upload_id(upload);
        match self.ask(key, 0, request.send()).await {
            Ok(_) | Err(BucketError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        let mut request = self.client.get_object().bucket(&self.bucket).key(self.key(key));
        if let Some(range) = &range {
            if range.is_empty() {
                // HTTP has no word for it.
                return self.head(key).await.map(|_| stream::empty().boxed());
            }
            request = if range.end == u64::MAX {
                request.range(format!("bytes={}-", range.start))
            } else {
                request.range(format!("bytes={}-{}", range.start, range.end - 1))
            };
        }
        let answer = self
            .ask(key, 0, async {
                match request.send().await {
                    // Nothing is there from the range's start on.
                    Err(SdkError::ServiceError(answer)) if answer.raw().status().as_u16() == 416 => Ok(None),
                    answer => answer.map(Some),
                }
            })
            .await?;
        let Some(answer) = answer else { return Ok(stream::empty().boxed()) };
        let (place, mut body) = (format!("{key} at {}", self.server), answer.body);
        let mut left = size(answer.content_length);
        let body = stream::poll_fn(move |context| {
            std::pin::Pin::new(&mut body).poll_next(context).map(|chunk| match chunk {
                Some(Ok(bytes)) => {
                    left = left.saturating_sub(bytes.len() as u64);
                    Some(Ok(bytes))
                }
                Some(Err(error)) => Some(Err(BucketError::Unreachable(format!("{place}: {}", root_cause(&error))))),
                // A connection that closes early must not look like a short object.
                None if left > 0 => {
                    let missing = std::mem::take(&mut left);
                    Some(Err(BucketError::Unreachable(format!(
                        "{place}: the answer broke off, {missing} bytes are missing"
                    ))))
                }
                None => None,
            })
        });
        Ok(body.boxed())
    }

    async fn head(&self, key: &str) -> Result<Object> {
        let request = self.client.head_object().bucket(&self.bucket).key(self.key(key));
        let answer = self.ask(key, 0, request.send()).await?;
        let (size, modified) = (size(answer.content_length), moment(answer.last_modified.as_ref()));
        Ok(Object { key: key.to_owned(), size, modified })
    }

    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        // The first page is asked for at once, so that a refusal is told here.
        let (first, next) = self.objects(self.page(prefix, None, None).await?);
        let (bucket, prefix) = (self.clone(), prefix.to_owned());
        let rest = stream::unfold(next, move |next| {
            let (bucket, prefix) = (bucket.clone(), prefix.clone());
            async move {
                let next = next?;
                match bucket.patience.again(|| bucket.page(&prefix, None, Some(&next))).await {
                    Ok(page) => {
                        let (objects, next) = bucket.objects(page);
                        Some((objects.into_iter().map(Ok).collect(), next))
                    }
                    Err(error) => Some((vec![Err(error)], None)),
                }
            }
        });
        let first: Vec<_> = first.into_iter().map(Ok).collect();
        Ok(stream::iter([first]).chain(rest).flat_map(stream::iter).boxed())
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let (mut folders, whole) = (Vec::new(), self.key(prefix));
        let mut page = self.page(prefix, Some("/"), None).await?;
        loop {
            let found = page.common_prefixes().iter().filter_map(|folder| folder.prefix()?.strip_prefix(&whole));
            folders.extend(found.map(str::to_owned));
            let Some(next) = page.next_continuation_token else { break };
            page = self.patience.again(|| self.page(prefix, Some("/"), Some(&next))).await?;
        }
        folders.sort();
        Ok(folders)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let request = self.client.delete_object().bucket(&self.bucket).key(self.key(key));
        match self.ask(key, 0, request.send()).await {
            Ok(_) | Err(BucketError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn versions(&self) -> Result<Versions> {
        self.ask_for_versions().await
    }

    async fn object_lock(&self) -> Result<ObjectLock> {
        self.ask_for_object_lock().await
    }

    async fn purge(&self, key: &str) -> Result<Purged> {
        self.remove_versions(key).await
    }
}
