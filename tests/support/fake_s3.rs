//! A small S3 server for what no real one can be made to do here: it knows as much of versions and locks as it is told to.
//! It is strict: what it was not taught ends the connection and shows in the test's output.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use md5::{Digest as _, Md5};
use rusuban::{
    bucket::s3::{S3, S3Settings},
    clock::Clock,
    config::secret::Secret,
};
use sha2::Sha256;

use super::{
    garage::patience,
    http::{Reply, Seen, Server, answer},
};

pub(crate) const BUCKET: &str = "box";
const ACCESS_KEY: &str = "fake-access-key";
const SECRET_KEY: &str = "fake-secret-key";

/// How it answers when it is asked of versions and locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    #[default]
    Answers,
    /// As a server that has not learnt the call.
    NotImplemented,
    /// As to a key that may not ask.
    Denied,
}

/// What the server is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nature {
    /// `Enabled`, `Suspended`, or never set.
    pub(crate) versioning: Option<&'static str>,
    /// The configuration of object lock, if there is one.
    pub(crate) object_lock: Option<&'static str>,
    pub(crate) asked: Asked,
    /// The key may remove versions by their names.
    pub(crate) may_remove_versions: bool,
    /// The key may delete at all.
    pub(crate) may_not_delete: bool,
}

impl Nature {
    /// Each object is locked when it is written.
    fn locks(&self) -> bool {
        self.object_lock.is_some_and(|lock| lock.contains("<DefaultRetention>"))
    }
}

#[derive(Clone, Debug)]
struct Version {
    id: String,
    /// None is the mark that a delete leaves.
    bytes: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Contents {
    /// The newest last.
    objects: BTreeMap<String, Vec<Version>>,
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    count: u32,
}

pub(crate) struct FakeS3 {
    pub(crate) server: Server,
    contents: Arc<Mutex<Contents>>,
}

impl FakeS3 {
    pub(crate) async fn start(nature: Nature) -> Self {
        let contents = Arc::new(Mutex::new(Contents::default()));
        let shared = Arc::clone(&contents);
        let server = Server::start(move |seen| shared.lock().unwrap().reply(&nature, seen)).await;
        Self { server, contents }
    }

    pub(crate) fn settings(&self) -> S3Settings {
        S3Settings {
            bucket: BUCKET.into(),
            prefix: "house/".into(),
            endpoint: Some(self.server.url("")),
            region: None,
            path_style: true,
            credentials: Some((Secret::new(ACCESS_KEY), Secret::new(SECRET_KEY))),
            certificates: None,
            silence: Duration::from_secs(20),
            patience: patience(2),
        }
    }

    pub(crate) async fn bucket(&self) -> S3 {
        S3::new(self.settings()).await.unwrap()
    }

    /// Versions and marks that it still has, and their bytes.
    pub(crate) fn kept(&self) -> (usize, usize) {
        let contents = self.contents.lock().unwrap();
        let all: Vec<_> = contents.objects.values().flatten().collect();
        (all.len(), all.iter().filter_map(|version| version.bytes.as_ref()).map(Vec::len).sum())
    }
}

fn refusal(status: &str, code: &str, message: &str) -> Reply {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    answer(status, "content-type: application/xml\r\n", body)
}

fn xml(body: &str) -> Reply {
    answer("200 OK", "content-type: application/xml\r\n", body)
}

/// The words of a query, `%2F` and the like undone.
fn query(text: &str) -> BTreeMap<String, String> {
    let plain = |text: &str| {
        let mut parts = text.split('%');
        let mut whole = parts.next().unwrap().to_owned();
        for part in parts {
            whole.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
            whole.push_str(&part[2..]);
        }
        whole
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (plain(name), plain(value))).collect()
}

fn now() -> chrono::DateTime<chrono::Utc> {
    Clock::system().now()
}

impl Contents {
    fn reply(&mut self, nature: &Nature, seen: &Seen) -> Reply {
        let target = seen.line.split(' ').nth(1).unwrap();
        let (path, words) = target.split_once('?').unwrap_or((target, ""));
        let mut words = query(words);
        // The SDK names the operation for its own people.
        words.remove("x-id");
        let place = path.strip_prefix(&format!("/{BUCKET}")).expect("another bucket");
        let key = place.trim_start_matches('/');
        let signed = seen.header("authorization").expect("not signed");
        assert!(signed.starts_with(&format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/")), "{signed}");
        let digest: String = Sha256::digest(&seen.body).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(seen.header("x-amz-content-sha256"), Some(digest.as_str()), "the body is not signed");

        if let Some(told) = seen.header("content-md5") {
            assert_eq!(told, BASE64_STANDARD.encode(Md5::digest(&seen.body)), "the MD5 is another's");
        }

        let method = seen.line.split(' ').next().unwrap();
        let names: Vec<_> = words.keys().map(String::as_str).collect();
        match (method, key.is_empty(), &names[..]) {
            ("PUT", false, _) if nature.locks() && seen.header("content-md5").is_none() => refusal(
                "400 Bad Request",
                "InvalidRequest",
                "Content-MD5 OR x-amz-checksum- HTTP header is required for Put requests with Object Lock parameters",
            ),
            ("PUT", false, []) => self.put(nature, key, seen.body.clone(), seen.header("if-none-match")),
            ("PUT", false, ["partNumber", "uploadId"]) => {
                let parts = self.uploads.get_mut(&words["uploadId"]).unwrap();
                parts.insert(words["partNumber"].parse().unwrap(), seen.body.clone());
                answer("200 OK", "etag: \"part\"\r\n", "")
            }
            ("POST", false, ["uploads"]) => {
                self.count += 1;
                let id = format!("upload-{}", self.count);
                self.uploads.insert(id.clone(), BTreeMap::new());
                xml(&format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            ("POST", false, ["uploadId"]) => {
                let parts = self.uploads.remove(&words["uploadId"]).unwrap();
                let sizes: Vec<_> = parts.values().map(Vec::len).collect();
                let (last, others) = sizes.split_last().unwrap();
                assert!(others.iter().all(|size| *size == others[0] && size >= last), "some servers want equal parts");
                self.put(nature, key, parts.into_values().collect::<Vec<_>>().concat(), None);
                xml("<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>")
            }
            ("DELETE", false, ["uploadId"]) => {
                self.uploads.remove(&words["uploadId"]);
                answer("204 No Content", "", "")
            }
            ("GET" | "HEAD", false, []) => self.get(method, key, seen.header("range")),
            ("DELETE", false, []) => self.delete(nature, key),
            ("DELETE", false, ["versionId"]) => self.remove(nature, key, &words["versionId"]),
            ("GET", true, ["list-type", "prefix"]) => self.list(&words["prefix"]),
            ("GET", true, ["versioning"]) => asked(nature, || {
                let status = nature.versioning.map(|status| format!("<Status>{status}</Status>"));
                xml(&format!("<VersioningConfiguration>{}</VersioningConfiguration>", status.unwrap_or_default()))
            }),
            ("GET", true, ["object-lock"]) => asked(nature, || match nature.object_lock {
                Some(configuration) => {
                    xml(&format!("<ObjectLockConfiguration>{configuration}</ObjectLockConfiguration>"))
                }
                None => refusal("404 Not Found", "ObjectLockConfigurationNotFoundError", "so it is"),
            }),
            ("GET", true, ["prefix", "versions"] | ["key-marker", "prefix", "version-id-marker", "versions"]) => {
                asked(nature, || self.list_versions(&words))
            }
            unknown => panic!("nobody taught the fake {unknown:?}"),
        }
    }

    fn there(&self, key: &str) -> Option<&Vec<u8>> {
        self.objects.get(key)?.last()?.bytes.as_ref()
    }

    /// Adds a version, or replaces the one that has no name of its own.
    fn add(&mut self, nature: &Nature, key: &str, bytes: Option<Vec<u8>>) {
        self.count += 1;
        let id = if nature.versioning == Some("Enabled") { format!("v{}", self.count) } else { "null".into() };
        let versions = self.objects.entry(key.to_owned()).or_default();
        versions.retain(|version| version.id != id);
        if bytes.is_some() || nature.versioning.is_some() {
            versions.push(Version { id, bytes });
        }
    }

    fn put(&mut self, nature: &Nature, key: &str, body: Vec<u8>, condition: Option<&str>) -> Reply {
        assert!(matches!(condition, None | Some("*")), "{condition:?}");
        if condition.is_some() && self.there(key).is_some() {
            return refusal("412 Precondition Failed", "PreconditionFailed", "so it is");
        }
        self.add(nature, key, Some(body));
        answer("200 OK", "etag: \"small\"\r\n", "")
    }

    fn get(&self, method: &str, key: &str, range: Option<&str>) -> Reply {
        let Some(bytes) = self.there(key) else {
            // HEAD has no body to say why in.
            return if method == "HEAD" {
                answer("404 Not Found", "", "")
            } else {
                refusal("404 Not Found", "NoSuchKey", "so it is")
            };
        };
        let (status, bytes) = match range.map(|range| range.strip_prefix("bytes=").unwrap().split_once('-').unwrap()) {
            None => ("200 OK", &bytes[..]),
            Some((first, last)) => {
                ("206 Partial Content", &bytes[first.parse().unwrap()..=last.parse::<usize>().unwrap()])
            }
        };
        let modified = now().format("%a, %d %b %Y %H:%M:%S GMT");
        let head = format!(
            "HTTP/1.1 {status}\r\nlast-modified: {modified}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            bytes.len()
        );
        Reply::Bytes(if method == "HEAD" { head.into_bytes() } else { [head.as_bytes(), bytes].concat() })
    }

    fn delete(&mut self, nature: &Nature, key: &str) -> Reply {
        if nature.may_not_delete {
            return refusal("403 Forbidden", "AccessDenied", "so it is");
        }
        self.add(nature, key, None);
        answer("204 No Content", "", "")
    }

    fn remove(&mut self, nature: &Nature, key: &str, id: &str) -> Reply {
        let versions = self.objects.get_mut(key).unwrap();
        let at = versions.iter().position(|version| version.id == id).expect("a version that was listed");
        // A mark is not locked.
        if !nature.may_remove_versions || (nature.locks() && versions[at].bytes.is_some()) {
            return refusal("403 Forbidden", "AccessDenied", "so it is");
        }
        versions.remove(at);
        answer("204 No Content", "", "")
    }

    fn list(&self, prefix: &str) -> Reply {
        let mut found = String::new();
        for key in self.objects.keys().filter(|key| key.starts_with(prefix)) {
            if let Some(bytes) = self.there(key) {
                let (size, modified) = (bytes.len(), now().format("%Y-%m-%dT%H:%M:%S.000Z"));
                found += &format!(
                    "<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>{modified}</LastModified></Contents>"
                );
            }
        }
        xml(&format!("<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"))
    }

    /// Pages of one version each, so that nobody takes the first for all.
    fn list_versions(&self, words: &BTreeMap<String, String>) -> Reply {
        let all: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(&words["prefix"]))
            .flat_map(|(key, versions)| versions.iter().rev().map(move |version| (key, version)))
            .collect();
        let index = words.get("version-id-marker").map_or(0, |after| after.parse().unwrap());
        let Some((key, version)) = all.get(index) else {
            return xml("<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>");
        };
        let (id, next) = (&version.id, index + 1);
        let entry = match &version.bytes {
            Some(bytes) => {
                format!("<Version><Key>{key}</Key><VersionId>{id}</VersionId><Size>{}</Size></Version>", bytes.len())
            }
            None => format!("<DeleteMarker><Key>{key}</Key><VersionId>{id}</VersionId></DeleteMarker>"),
        };
        let more = format!("<NextKeyMarker>{key}</NextKeyMarker><NextVersionIdMarker>{next}</NextVersionIdMarker>");
        let (truncated, more) = if next < all.len() { (true, more) } else { (false, String::new()) };
        xml(&format!("<ListVersionsResult><IsTruncated>{truncated}</IsTruncated>{entry}{more}</ListVersionsResult>"))
    }
}

fn asked(nature: &Nature, told: impl FnOnce() -> Reply) -> Reply {
    match nature.asked {
        Asked::Answers => told(),
        Asked::NotImplemented => refusal("501 Not Implemented", "NotImplemented", "so it is"),
        Asked::Denied => refusal("403 Forbidden", "AccessDenied", "so it is"),
    }
}
