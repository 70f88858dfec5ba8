//! What only an S3 server has: keys that are wrong, servers that are down, uploads that it keeps, networks that break off.
use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rusuban::{
    bucket::{
        Bucket, BucketError, PART, Put, Upload,
        limited::Limited,
        retrying::Retrying,
        s3::{S3, S3Settings},
    },
    config::secret::Secret,
};

use super::promises::{World, for_each_promise, keys, noise, read, upload};
use crate::support::{
    cut::{Cut, Network},
    garage::{self, Garage, patience},
};

#[tokio::test]
async fn a_stranger_is_refused_in_the_servers_words_and_no_secret_is_told() {
    let (key, secret) = Garage::credentials();
    let wrong = Secret::new("f".repeat(64));
    for credentials in [(key, wrong.clone()), (Secret::new("GKffffffffffffffffffffffff"), secret)] {
        let stranger = S3::new(S3Settings { credentials: Some(credentials.clone()), ..garage::settings("stranger") })
            .await
            .unwrap();
        let told = [
            stranger.put("a", "x".into(), Put::Replace).await.unwrap_err(),
            stranger.get("a", None).await.map(drop).unwrap_err(),
            stranger.head("a").await.unwrap_err(),
            stranger.list("").await.map(drop).unwrap_err(),
            stranger.folders("").await.unwrap_err(),
            stranger.delete("a").await.unwrap_err(),
            stranger.upload("a").await.map(drop).unwrap_err(),
            stranger.abort_upload("a", "b").await.unwrap_err(),
        ];
        for error in told {
            assert!(matches!(error, BucketError::Refused(_)), "{error:?}");
            assert!(error.to_string().contains("HTTP 403"), "{error}");
            assert!(!error.to_string().contains(credentials.1.reveal()), "{error}");
        }
        assert!(!format!("{stranger:?}").contains(credentials.1.reveal()));
    }
}

#[tokio::test]
async fn a_wrong_region_and_a_bucket_that_is_not_there_are_refusals_that_say_so() {
    let settings = S3Settings { region: Some("us-east-1".into()), ..garage::settings("region") };
    let error = S3::new(settings).await.unwrap().list("").await.map(drop).unwrap_err();
    assert!(matches!(error, BucketError::Refused(_)) && error.to_string().contains("garage"), "{error:?}");

    let settings = S3Settings { bucket: "elsewhere".into(), ..garage::settings("bucket") };
    let bucket = S3::new(settings).await.unwrap();
    for error in [bucket.list("").await.map(drop).unwrap_err(), bucket.get("a", None).await.map(drop).unwrap_err()] {
        assert!(matches!(error, BucketError::Refused(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_unreachable_and_named() {
    let server = Garage::start();
    let endpoint = server.endpoint.clone();
    let bucket = S3::new(S3Settings { endpoint: Some(endpoint.clone()), ..garage::settings("down") }).await.unwrap();
    bucket.put("a", "x".into(), Put::Replace).await.unwrap();
    drop(server);
    for error in [
        bucket.put("a", "x".into(), Put::Replace).await.unwrap_err(),
        bucket.list("").await.map(drop).unwrap_err(),
        bucket.head("a").await.unwrap_err(),
    ] {
        assert!(error.worth_retrying(), "{error:?}");
        assert!(error.to_string().contains(&endpoint), "{error}");
    }
}

#[tokio::test]
async fn garage_overwrites_in_spite_of_a_condition() {
    // docs/buckets.md says so; when this fails, it has learnt better, and `World::conditional` can be true.
    let bucket = garage::bucket("conditional").await;
    bucket.put("a", "first".into(), Put::IfAbsent).await.unwrap();
    bucket.put("a", "second".into(), Put::IfAbsent).await.unwrap();
    assert_eq!(read(&bucket, "a").await.unwrap(), "second");
}

/// The uploads that the server knows of and that were not ended.
async fn unfinished(prefix: &str) -> usize {
    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
    let (key, secret) = Garage::credentials();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(garage::REGION))
        .endpoint_url(&garage::garage().endpoint)
        .force_path_style(true)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(Credentials::new(key.reveal(), secret.reveal(), None, None, "test"))
        .build();
    let listed = aws_sdk_s3::Client::from_conf(config).list_multipart_uploads().bucket(garage::BUCKET).prefix(prefix);
    listed.send().await.unwrap().uploads().len()
}

#[tokio::test]
async fn the_server_keeps_nothing_of_an_upload_that_was_ended() {
    let bucket = garage::bucket("uploads").await;
    let mut begun = Vec::new();
    for n in 0..3 {
        let mut upload = bucket.upload(&format!("{n}")).await.unwrap();
        upload.part(noise(n, PART)).await.unwrap();
        begun.push(upload);
    }
    assert_eq!(unfinished("uploads/").await, 3);
    let last = begun.pop().unwrap();
    let id = last.id();
    drop(last);
    bucket.abort_upload("2", &id).await.unwrap();
    begun.pop().unwrap().abort().await.unwrap();
    begun.pop().unwrap().finish().await.unwrap();
    upload(&bucket, "empty", &Bytes::new()).await.unwrap();
    assert_eq!(unfinished("uploads/").await, 0);
    assert_eq!(keys(&bucket, "").await, ["0", "empty"]);
}

#[tokio::test]
async fn an_upload_that_lost_a_part_cannot_be_finished() {
    let network = Network::to(&garage::garage().endpoint).await;
    let settings = S3Settings { endpoint: Some(network.endpoint()), ..garage::settings("lost-part") };
    let bucket = S3::new(settings).await.unwrap();
    let mut upload = bucket.upload("data").await.unwrap();
    upload.part(noise(1, PART)).await.unwrap();
    network.all(Cut::Refuse);
    upload.part(noise(2, PART)).await.ok();
    upload.part(noise(3, PART)).await.ok();
    upload.part(noise(4, PART)).await.ok();
    upload.part(noise(5, PART)).await.ok();
    network.all(Cut::Nothing);
    upload.part(noise(6, PART)).await.ok();
    upload.finish().await.unwrap_err();
    assert_eq!(keys(&bucket, "").await, [""; 0]);
}

#[tokio::test]
async fn a_part_that_gets_no_answer_is_sent_again() {
    let network = Network::to(&garage::garage().endpoint).await;
    let settings = S3Settings {
        endpoint: Some(network.endpoint()),
        silence: Duration::from_millis(400),
        patience: patience(4),
        ..garage::settings("silent")
    };
    let bucket = S3::new(settings).await.unwrap();
    let small: Vec<_> = (0..3).map(|n| noise(n, 1000)).collect();
    let mut upload: Box<dyn Upload> = bucket.upload("data").await.unwrap();
    network.next(Cut::Silence);
    upload.part(small.concat().into()).await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(read(&bucket, "data").await.unwrap(), small.concat());
}

#[tokio::test]
async fn the_lost_answer_to_the_end_of_an_upload_is_no_failure() {
    let network = Network::to(&garage::garage().endpoint).await;
    let settings = S3Settings {
        endpoint: Some(network.endpoint()),
        patience: patience(4),
        silence: Duration::from_secs(1),
        ..garage::settings("answer")
    };
    let bucket = S3::new(settings).await.unwrap();
    bucket.put("data", "the older state".into(), Put::Replace).await.unwrap();
    let mut upload = bucket.upload("data").await.unwrap();
    upload.part(noise(1, PART)).await.unwrap();
    let whole = noise(1, PART);
    // The part is there before the answer to the end is lost.
    network.settle().await;
    network.lose_answers_to("POST", 1);
    upload.finish().await.unwrap();
    assert!(read(&bucket, "data").await.unwrap() == whole);

    // But an upload that is gone is a failure, also when an older object is there.
    let mut upload = bucket.upload("data").await.unwrap();
    upload.part(noise(2, PART)).await.unwrap();
    network.settle().await;
    bucket.abort_upload("data", &upload.id()).await.unwrap();
    upload.finish().await.unwrap_err();
}

/// Connections break off again and again, and every promise is kept.
mod on_a_bad_network {
    use super::*;

    async fn world() -> (World, Network) {
        let network = Network::to(&garage::garage().endpoint).await;
        let prefix = format!("network-{}", network.endpoint().rsplit_once(':').unwrap().1);
        let settings = S3Settings {
            endpoint: Some(network.endpoint()),
            silence: Duration::from_secs(5),
            patience: patience(20),
            ..garage::settings(&prefix)
        };
        let limited = Limited::new(Arc::new(S3::new(settings).await.unwrap()), Duration::from_secs(10), None, None);
        network.all(Cut::Sometimes);
        let bucket = Retrying::new(Arc::new(limited), patience(20));
        (World { bucket: Arc::new(bucket), conditional: false, steady: false }, network)
    }

    macro_rules! suite {
        ($($promise:ident)*) => {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $promise() {
                    let (world, network) = world().await;
                    crate::bucket::promises::$promise(world).await;
                    drop(network);
                }
            )*
        };
    }

    for_each_promise!(suite);
}

#[tokio::test]
async fn without_credentials_it_is_refused_at_once() {
    // The machine's own credentials, if it has some, are not known to this server either.
    let settings = S3Settings { credentials: None, ..garage::settings("nobody") };
    let begun = tokio::time::Instant::now();
    let bucket = Retrying::new(Arc::new(S3::new(settings).await.unwrap()), patience(5));
    let error = bucket.list("").await.map(drop).unwrap_err();
    assert!(matches!(error, BucketError::Refused(_)), "{error:?} after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_server_that_is_none_is_told() {
    use crate::support::http::{Server, answer};
    let server = Server::start(|_| answer("200 OK", "content-type: text/html\r\n", "<html>router login</html>")).await;
    let settings = S3Settings { endpoint: Some(server.url("")), ..garage::settings("router") };
    let error = S3::new(settings).await.unwrap().list("").await.map(drop).unwrap_err();
    assert!(error.to_string().contains("did not answer as an S3 server does"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ones_own_is_trusted_when_it_is_named_and_only_then() {
    let front = crate::support::tls::Front::of(&garage::garage().endpoint).await;
    let with = |certificates: Option<Vec<u8>>| S3Settings {
        endpoint: Some(front.endpoint.clone()),
        certificates,
        ..garage::settings("certificate")
    };
    let trusting = S3::new(with(Some(front.authority.clone()))).await.unwrap();
    trusting.put("a", "x".into(), Put::Replace).await.unwrap();
    assert_eq!(read(&trusting, "a").await.unwrap(), "x");

    let stranger = S3::new(with(None)).await.unwrap();
    let error = stranger.put("a", "y".into(), Put::Replace).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(read(&trusting, "a").await.unwrap(), "x");
}
