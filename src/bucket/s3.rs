//! An S3 bucket and prefix.
//!
//! Bodies are sent from memory only: their SHA-256 is then part of the signature, on plain http too. Streamed bodies with
//! trailing checksums, the SDK's default, are refused by Garage and by older Ceph; so checksums are sent "when required".
use std::{collections::BTreeMap, fmt, ops::Range, time::Duration};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use bytes::Bytes;
use chrono::DateTime;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use tokio::task::JoinSet;

use super::{Body, Bucket, BucketError, Object, Put, Result, Upload, retrying::Patience};
use crate::config::secret::Secret;

/// Parts on their way at once; with the one that is being filled, what an upload holds in memory.
const PARTS_AT_ONCE: usize = 3;
/// S3's limit.
const MOST_PARTS: i32 = 10_000;

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
    /// How patient to be with each part of an upload.
    pub patience: Patience,
}

/// A bucket on an S3 server.
#[derive(Clone)]
pub struct S3 {
    client: Client,
    bucket: String,
    prefix: String,
    description: String,
    patience: Patience,
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
            patience: settings.patience,
        })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

/// The SDK's error in the words of [`BucketError`]; the server's own words are kept.
fn explain<E>(error: SdkError<E>, key: &str) -> BucketError
where
    SdkError<E>: std::error::Error + 'static,
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match &error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let code = answer.err().code().unwrap_or("no code");
            let text = format!("{key}: {} ({code}, HTTP {status})", answer.err().message().unwrap_or("no message"));
            match (status, code) {
                (404, _) | (_, "NoSuchKey" | "NotFound") => BucketError::NotFound(text),
                (412 | 409, _) => BucketError::Exists(text),
                (_, "QuotaExceeded" | "XMinioStorageFull" | "StorageFull") | (507, _) => BucketError::Full(text),
                (429 | 500 | 502..=504, _) | (_, "SlowDown" | "RequestTimeout" | "InternalError") => {
                    BucketError::Unreachable(text)
                }
                (400 | 401 | 403, _) => BucketError::Refused(text),
                _ => BucketError::Other(text),
            }
        }
        SdkError::ConstructionFailure(_) => BucketError::Refused(format!("{key}: {}", DisplayErrorContext(&error))),
        _ => BucketError::Unreachable(format!("{key}: {}", root_cause(&error))),
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn moment(at: Option<&aws_sdk_s3::primitives::DateTime>) -> DateTime<chrono::Utc> {
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

    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()> {
        let mut request = self.client.put_object().bucket(&self.bucket).key(self.key(key)).body(ByteStream::from(body));
        if put == Put::IfAbsent {
            request = request.if_none_match("*");
        }
        request.send().await.map_err(|error| explain(error, key))?;
        Ok(())
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(self.key(key))
            .send()
            .await
            .map_err(|error| explain(error, key))?;
        let id =
            begun.upload_id.ok_or_else(|| BucketError::Other(format!("{key}: the server gave the upload no id")))?;
        Ok(Box::new(S3Upload {
            bucket: self.clone(),
            key: key.to_owned(),
            id,
            begun: 0,
            on_their_way: JoinSet::new(),
            arrived: BTreeMap::new(),
        }))
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        let aborted =
            self.client.abort_multipart_upload().bucket(&self.bucket).key(self.key(key)).upload_id(upload).send().await;
        match aborted.map_err(|error| explain(error, key)) {
            Ok(_) | Err(BucketError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        let mut request = self.client.get_object().bucket(&self.bucket).key(self.key(key));
        if let Some(range) = &range {
            if range.is_empty() {
                return Ok(stream::empty().boxed());
            }
            request = if range.end == u64::MAX {
                request.range(format!("bytes={}-", range.start))
            } else {
                request.range(format!("bytes={}-{}", range.start, range.end - 1))
            };
        }
        let sent = request.send().await;
        if let Err(SdkError::ServiceError(answer)) = &sent
            && answer.raw().status().as_u16() == 416
        {
            // Nothing is there from `start` on.
            return Ok(stream::empty().boxed());
        }
        let answer = sent.map_err(|error| explain(error, key))?;
        let (key, mut body) = (key.to_owned(), answer.body);
        let mut left = size(answer.content_length);
        let body = stream::poll_fn(move |context| {
            std::pin::Pin::new(&mut body).poll_next(context).map(|chunk| match chunk {
                Some(Ok(bytes)) => {
                    left = left.saturating_sub(bytes.len() as u64);
                    Some(Ok(bytes))
                }
                Some(Err(error)) => Some(Err(BucketError::Unreachable(format!("{key}: {}", root_cause(&error))))),
                // A connection that closes early must not look like a short object.
                None if left > 0 => {
                    let missing = std::mem::take(&mut left);
                    Some(Err(BucketError::Unreachable(format!(
                        "{key}: the answer broke off, {missing} bytes are missing"
                    ))))
                }
                None => None,
            })
        });
        Ok(body.boxed())
    }

    async fn head(&self, key: &str) -> Result<Object> {
        let answer = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .send()
            .await
            .map_err(|error| explain(error, key))?;
        Ok(Object {
            key: key.to_owned(),
            size: size(answer.content_length),
            modified: moment(answer.last_modified.as_ref()),
        })
    }

    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        let pages = Pages { bucket: self.clone(), prefix: prefix.to_owned(), next: None, over: false };
        // The first page is asked for at once, so that a refusal is told here.
        let (first, pages) = pages.next().await?;
        let rest = stream::unfold(pages, |pages| async move {
            if pages.over {
                return None;
            }
            match pages.next().await {
                Ok((objects, pages)) => Some((objects.into_iter().map(Ok).collect::<Vec<_>>(), pages)),
                Err((error, pages)) => Some((vec![Err(error)], pages)),
            }
        });
        let objects = stream::iter([first.into_iter().map(Ok).collect::<Vec<_>>()]).chain(rest).flat_map(stream::iter);
        Ok(objects.boxed())
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let whole = self.key(prefix);
        let mut pages =
            self.client.list_objects_v2().bucket(&self.bucket).prefix(&whole).delimiter("/").into_paginator().send();
        let mut folders = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| explain(error, prefix))?;
            let found = page.common_prefixes().iter().filter_map(|folder| folder.prefix()?.strip_prefix(&whole));
            folders.extend(found.map(str::to_owned));
        }
        folders.sort();
        Ok(folders)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .send()
            .await
            .map_err(|error| explain(error, key))?;
        Ok(())
    }
}

/// A listing, page by page.
struct Pages {
    bucket: S3,
    prefix: String,
    next: Option<String>,
    over: bool,
}

impl Pages {
    async fn next(mut self) -> std::result::Result<(Vec<Object>, Self), (BucketError, Self)> {
        let patience = self.bucket.patience.clone();
        let page = patience
            .again(|| async {
                let request = self.bucket.client.list_objects_v2().bucket(&self.bucket.bucket);
                let request = request.prefix(self.bucket.key(&self.prefix)).set_continuation_token(self.next.clone());
                request.send().await.map_err(|error| explain(error, &self.prefix))
            })
            .await;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                self.over = true;
                return Err((error, self));
            }
        };
        self.next = page.next_continuation_token;
        self.over = self.next.is_none();
        let objects = page.contents.unwrap_or_default().into_iter().filter_map(|object| {
            let key = object.key.as_deref()?.strip_prefix(&self.bucket.prefix)?.to_owned();
            Some(Object { key, size: size(object.size), modified: moment(object.last_modified.as_ref()) })
        });
        Ok((objects.collect(), self))
    }
}

impl From<(BucketError, Pages)> for BucketError {
    fn from((error, _): (BucketError, Pages)) -> Self {
        error
    }
}

struct S3Upload {
    bucket: S3,
    key: String,
    id: String,
    begun: i32,
    on_their_way: JoinSet<Result<(i32, CompletedPart)>>,
    arrived: BTreeMap<i32, CompletedPart>,
}

impl S3Upload {
    async fn wait_for_one(&mut self) -> Result<()> {
        if let Some(part) = self.on_their_way.join_next().await {
            let (number, part) = part.map_err(|error| BucketError::Other(error.to_string()))??;
            self.arrived.insert(number, part);
        }
        Ok(())
    }
}

#[async_trait]
impl Upload for S3Upload {
    fn id(&self) -> String {
        self.id.clone()
    }

    async fn part(&mut self, part: Bytes) -> Result<()> {
        if self.begun == MOST_PARTS {
            return Err(BucketError::Other(format!("{}: too large for an S3 object of {MOST_PARTS} parts", self.key)));
        }
        while self.on_their_way.len() >= PARTS_AT_ONCE {
            self.wait_for_one().await?;
        }
        self.begun += 1;
        let (bucket, key, id, number) = (self.bucket.clone(), self.key.clone(), self.id.clone(), self.begun);
        self.on_their_way.spawn(async move {
            let send = || async {
                let request = bucket.client.upload_part().bucket(&bucket.bucket).key(bucket.key(&key)).upload_id(&id);
                let request = request.part_number(number).body(ByteStream::from(part.clone()));
                request.send().await.map_err(|error| explain(error, &key))
            };
            let sent = bucket.patience.again(send).await?;
            Ok((number, CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build()))
        });
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        if self.begun == 0 {
            // An upload without parts cannot be completed, and not every server takes an empty part.
            self.bucket.put(&self.key, Bytes::new(), Put::Replace).await?;
            return self.abort().await;
        }
        while !self.on_their_way.is_empty() {
            self.wait_for_one().await?;
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.arrived.into_values().collect())).build();
        let bucket = &self.bucket;
        let complete = || async {
            let request = bucket.client.complete_multipart_upload().bucket(&bucket.bucket).key(bucket.key(&self.key));
            let request = request.upload_id(&self.id).multipart_upload(parts.clone());
            request.send().await.map_err(|error| explain(error, &self.key))
        };
        match bucket.patience.again(complete).await {
            Ok(_) => Ok(()),
            // The answer to an earlier try may have been lost: then the upload is gone, and the object is there. Whoever put
            // it reads it back.
            Err(BucketError::NotFound(text)) => {
                bucket.head(&self.key).await.map(drop).map_err(|_| BucketError::NotFound(text))
            }
            Err(error) => Err(error),
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.on_their_way.shutdown().await;
        self.bucket.abort_upload(&self.key, &self.id).await
    }
}
