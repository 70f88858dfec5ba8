//! A real Ceph RADOS gateway: an S3 server with versions and locks. `dev/test --ceph` starts it and says where it is.
use std::time::Duration;

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    types::{
        BucketVersioningStatus, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetentionMode,
        ObjectLockRule, VersioningConfiguration,
    },
};
use rusuban::{
    bucket::s3::{S3, S3Settings},
    config::secret::Secret,
};

use super::garage::patience;

/// Its users; `dev/ceph` makes them, and their secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// Who makes the buckets and may do all with them.
    House,
    /// Who may do what a bucket's policy says.
    Guest,
}

/// What docs/buckets.md tells to allow.
pub(crate) const NEEDED: [&str; 4] = ["s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:AbortMultipartUpload"];
/// For retention and prune, and for the locks of a repository.
pub(crate) const DELETE: &str = "s3:DeleteObject";

impl User {
    pub(crate) fn credentials(self) -> (Secret, Secret) {
        let name = if self == Self::House { "house" } else { "guest" };
        (Secret::new(name), Secret::new(format!("{name}-secret")))
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is told by dev/test where the server is")]
pub(crate) fn endpoint() -> String {
    std::env::var("RUSUBAN_TEST_CEPH").expect("RUSUBAN_TEST_CEPH says where Ceph is; dev/test --ceph sets it")
}

/// A bucket of one's own, new and empty.
#[derive(Clone, Debug)]
pub(crate) struct CephBucket {
    pub(crate) name: String,
    client: Client,
}

impl CephBucket {
    pub(crate) async fn plain() -> Self {
        Self::new(false).await
    }

    /// One that keeps versions.
    pub(crate) async fn versioned() -> Self {
        let bucket = Self::new(false).await;
        bucket.versioning(BucketVersioningStatus::Enabled).await;
        bucket
    }

    /// One that locks each version for a day.
    pub(crate) async fn locked(mode: ObjectLockRetentionMode) -> Self {
        let bucket = Self::new(true).await;
        let retention = DefaultRetention::builder().mode(mode).days(1).build();
        let configuration = ObjectLockConfiguration::builder()
            .object_lock_enabled(ObjectLockEnabled::Enabled)
            .rule(ObjectLockRule::builder().default_retention(retention).build())
            .build();
        let request = bucket.client.put_object_lock_configuration().bucket(&bucket.name);
        request.object_lock_configuration(configuration).send().await.unwrap();
        bucket
    }

    /// One whose objects can be locked.
    pub(crate) async fn lockable() -> Self {
        Self::new(true).await
    }

    async fn new(lockable: bool) -> Self {
        let (key, secret) = User::House.credentials();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint())
            .force_path_style(true)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(Credentials::new(key.reveal(), secret.reveal(), None, None, "test"));
        let client = Client::from_conf(config.build());
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let name = format!("test-{:016x}", u64::from_ne_bytes(random));
        let request = client.create_bucket().bucket(&name).set_object_lock_enabled_for_bucket(lockable.then_some(true));
        request.send().await.unwrap();
        Self { name, client }
    }

    pub(crate) async fn versioning(&self, status: BucketVersioningStatus) {
        let configuration = VersioningConfiguration::builder().status(status).build();
        let request = self.client.put_bucket_versioning().bucket(&self.name);
        request.versioning_configuration(configuration).send().await.unwrap();
    }

    /// Lets the guest do this, and no more.
    pub(crate) async fn let_guest(&self, actions: &[&str]) {
        self.policy(&[(actions, "*")]).await;
    }

    /// Lets the guest add, and remove nothing but the locks of the repository there.
    pub(crate) async fn let_guest_add(&self, repository: &str) {
        self.policy(&[(&NEEDED, "*"), (&[DELETE], &format!("{repository}/locks/*"))]).await;
    }

    /// What the guest may do with which objects.
    async fn policy(&self, allowed: &[(&[&str], &str)]) {
        let place = format!("arn:aws:s3:::{}", self.name);
        let statements = allowed.iter().map(|(actions, keys)| {
            serde_json::json!({
                "Effect": "Allow",
                "Principal": { "AWS": ["arn:aws:iam:::user/guest"] },
                "Action": actions,
                "Resource": [place, format!("{place}/{keys}")],
            })
        });
        let statements: Vec<_> = statements.collect();
        let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": statements });
        self.client.put_bucket_policy().bucket(&self.name).policy(policy.to_string()).send().await.unwrap();
    }

    pub(crate) fn settings(&self, user: User) -> S3Settings {
        S3Settings {
            bucket: self.name.clone(),
            prefix: "of this house/".into(),
            endpoint: Some(endpoint()),
            region: None,
            path_style: true,
            credentials: Some(user.credentials()),
            certificates: None,
            silence: Duration::from_secs(60),
            patience: patience(1),
        }
    }

    pub(crate) async fn by(&self, user: User) -> S3 {
        S3::new(self.settings(user)).await.unwrap()
    }

    /// The objects that were deleted and of which versions are still there.
    pub(crate) async fn hidden(&self) -> Vec<String> {
        let listed = self.client.list_object_versions().bucket(&self.name).send().await.unwrap();
        assert_ne!(listed.is_truncated, Some(true));
        let kept = |key: &str| listed.versions().iter().any(|version| version.key() == Some(key));
        let deleted = listed.delete_markers().iter().filter(|mark| mark.is_latest() == Some(true));
        deleted.filter_map(|mark| mark.key()).filter(|key| kept(key)).map(str::to_owned).collect()
    }

    /// Versions and marks of deletion that are there.
    pub(crate) async fn kept(&self) -> (usize, usize) {
        let listed = self.client.list_object_versions().bucket(&self.name).send().await.unwrap();
        assert_ne!(listed.is_truncated, Some(true));
        (listed.versions().len(), listed.delete_markers().len())
    }
}
