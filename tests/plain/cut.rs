//! A backup that is cut off at each of its operations on the bucket: as by `kill -9`, and as by a bucket that stops answering.
use std::{
    fs,
    io::Read,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use rusuban::{
    bucket::{Body, Bucket, BucketError, Object, PART, Put, Result, Upload, folder::Folder},
    clock::Clock,
    plain::{self, Reading, Writer},
    tree::Tree,
};

use super::support::Place;
use crate::support::faulty::{Fault, Faulty};

/// A bucket that from its operation number `at` on only fails, that one operation having been done or not.
#[derive(Clone, Debug)]
struct Cut {
    inner: Arc<dyn Bucket>,
    count: Arc<AtomicUsize>,
    at: usize,
    done_but_not_told: bool,
    /// Only that one operation fails.
    once: bool,
}

impl Cut {
    fn fails(&self) -> (bool, bool) {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let fails = number == self.at || (number > self.at && !self.once);
        (fails, fails && !(self.done_but_not_told && number == self.at))
    }

    async fn through<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (fails, not_done) = self.fails();
        if not_done {
            return Err(BucketError::Unreachable("cut".into()));
        }
        let done = work.await?;
        if fails { Err(BucketError::Unreachable("cut after it was done".into())) } else { Ok(done) }
    }
}

#[async_trait]
impl Bucket for Cut {
    fn describe(&self) -> String {
        "cut".into()
    }
    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()> {
        self.through(self.inner.put(key, body, put)).await
    }
    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let inner = self.through(self.inner.upload(key)).await?;
        Ok(Box::new(CutUpload { cut: self.clone(), inner }))
    }
    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        self.through(self.inner.abort_upload(key, upload)).await
    }
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        self.through(self.inner.get(key, range)).await
    }
    async fn head(&self, key: &str) -> Result<Object> {
        self.through(self.inner.head(key)).await
    }
    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        self.through(self.inner.list(prefix)).await
    }
    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.through(self.inner.folders(prefix)).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.through(self.inner.delete(key)).await
    }
}

struct CutUpload {
    cut: Cut,
    inner: Box<dyn Upload>,
}

#[async_trait]
impl Upload for CutUpload {
    fn id(&self) -> String {
        self.inner.id()
    }
    async fn part(&mut self, part: Bytes) -> Result<()> {
        let cut = self.cut.clone();
        cut.through(self.inner.part(part)).await
    }
    async fn finish(self: Box<Self>) -> Result<()> {
        self.cut.clone().through(self.inner.finish()).await
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        self.cut.clone().through(self.inner.abort()).await
    }
}

/// What must be true at any moment: whatever has a manifest is whole.
async fn assert_whole(bucket: &Arc<dyn Bucket>, what: &str) -> usize {
    let listing = plain::list(bucket, &"photos".parse().unwrap()).await.unwrap();
    assert_eq!(listing.damaged, Vec::<String>::new(), "{what}");
    for backup in &listing.backups {
        plain::verify(bucket, backup, &Reading::default()).await.unwrap_or_else(|error| panic!("{what}: {error:#}"));
    }
    listing.backups.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_at_any_operation_there_is_a_whole_backup_or_none() {
    let mut operations = 0;
    // More than one part, and nothing to compress.
    let mut random = vec![0; PART + 100_000];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    for (done_but_not_told, once) in [(false, false), (true, false), (false, true), (true, true)] {
        for at in 0.. {
            let what = format!("operation {at}, done: {done_but_not_told}, once: {once}");
            let mut place = Place::new();
            let source = place.path("source");
            fs::create_dir(&source).unwrap();
            fs::write(source.join("file"), &random).unwrap();
            let honest: Arc<dyn Bucket> = Arc::new(Folder::new(place.path("bucket")));
            let count = Arc::new(AtomicUsize::new(0));
            // The first operation finds the name free; without it there is no writer.
            let cut =
                Cut { inner: Arc::clone(&honest), count: Arc::clone(&count), at: at + 1, done_but_not_told, once };
            place.bucket = Arc::new(cut);
            let made = place.back_up(Tree::at(&source)).await;
            let whole = assert_whole(&honest, &what).await;
            if made.is_ok() {
                assert_eq!(whole, 1, "{what}");
            }
            // What is owed suffices to clean up, as after a crash.
            let owed = std::mem::take(&mut *place.told.owed.lock().unwrap());
            for (_, key, upload) in owed {
                honest.abort_upload(&key, &upload).await.unwrap();
            }
            let kept: Vec<_> = honest.list("").await.unwrap().collect().await;
            let unfinished = place.stored().len() - kept.len();
            assert_eq!(unfinished, 0, "{what}: {:?}", place.stored());
            if once && made.is_err() {
                assert!(kept.is_empty(), "{what}: {kept:?}");
            }
            if count.load(Ordering::SeqCst) <= at + 1 {
                operations = at;
                break;
            }
        }
        assert!(operations > 6, "only {operations} operations were cut");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_cut_off_at_any_operation_leaves_no_manifest_without_its_data() {
    for at in 0..10 {
        let place = Place::new();
        fs::write(place.path("file"), "x").unwrap();
        let manifest = place.back_up(Tree::at(&place.path("file"))).await.unwrap();
        let cut = Cut {
            inner: Arc::clone(&place.bucket),
            count: Arc::default(),
            at,
            done_but_not_told: at % 2 == 0,
            once: false,
        };
        let cut: Arc<dyn Bucket> = Arc::new(cut);
        let removed = plain::delete(&cut, &manifest).await;
        assert_whole(&place.bucket, &format!("operation {at}")).await;
        let now = Clock::system().now() + chrono::TimeDelta::days(400);
        let job = "photos".parse().unwrap();
        for leftover in plain::leftovers(&place.bucket, &job, now).await.unwrap() {
            plain::remove_leftover(&place.bucket, &leftover).await.unwrap();
            assert!(removed.is_err());
        }
        assert!(removed.is_err() || place.stored().is_empty(), "{:?}", place.stored());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_cut_off_at_any_operation_leaves_no_manifest_without_its_data_and_goes_on_later() {
    let source = Place::new();
    fs::create_dir(source.path("tree")).unwrap();
    fs::write(source.path("tree/large"), vec![7; 3 << 20]).unwrap();
    let manifest = source.back_up(Tree::at(&source.path("tree"))).await.unwrap();
    let mut cut_off = 0;
    for at in 0..40 {
        for done_but_not_told in [false, true] {
            let what = format!("operation {at}, done: {done_but_not_told}");
            let place = Place::new();
            let honest = Arc::clone(&place.bucket);
            let cut = Cut { inner: Arc::clone(&honest), count: Arc::default(), at, done_but_not_told, once: false };
            let copied = Writer::copy(&source.bucket, &manifest, place.setting(Arc::new(cut))).await;
            assert_whole(&honest, &what).await;
            let is_there = async || plain::list(&honest, &manifest.job).await.unwrap().backups == [manifest.clone()];
            assert!(copied.is_err() || is_there().await, "{what}: green, and the copy is not there");
            cut_off += usize::from(copied.is_err());
            let owed = std::mem::take(&mut *place.told.owed.lock().unwrap());
            for (_, key, upload) in owed {
                honest.abort_upload(&key, &upload).await.unwrap();
            }
            let again = Writer::copy(&source.bucket, &manifest, place.setting(Arc::clone(&honest))).await;
            again.unwrap_or_else(|error| panic!("{what}, again: {error:#}"));
            assert!(is_there().await, "{what}");
            plain::verify(&honest, &manifest, &Reading::default()).await.unwrap();
        }
    }
    assert!((12..60).contains(&cut_off), "{cut_off} copies were cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_damaged_at_the_source_is_not_copied_as_if_it_were_whole() {
    let (source, place) = (Place::new(), Place::new());
    fs::write(source.path("file"), vec![7; 1 << 20]).unwrap();
    let manifest = source.back_up(Tree::at(&source.path("file"))).await.unwrap();
    let stored = source.path("bucket").join(&manifest.sources[0].key);
    let mut bytes = fs::read(&stored).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&stored, bytes).unwrap();
    let error = Writer::copy(&source.bucket, &manifest, place.setting(Arc::clone(&place.bucket))).await.unwrap_err();
    assert!(format!("{error:#}").contains("is not what was stored"), "{error:#}");
    assert_eq!(plain::list(&place.bucket, &manifest.job).await.unwrap().backups, []);
    assert!(place.told.owed.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_being_read_back_stops_when_it_is_asked_to() {
    let (source, place) = (Place::new(), Place::new());
    fs::write(source.path("file"), vec![7; 1 << 20]).unwrap();
    let manifest = source.back_up(Tree::at(&source.path("file"))).await.unwrap();
    // Is it there? Then it is sent, and read back.
    let plan = |operation| (operation == 2).then_some(Fault::Hang);
    let slow = Faulty::new(Arc::clone(&place.bucket), plan).only_whole_operations();
    let copying = Writer::copy(&source.bucket, &manifest, place.setting(Arc::new(slow.clone())));
    let asking = async {
        while slow.operations() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        place.cancelled.cancel();
    };
    let (copied, ()) =
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(copying, asking) }).await.expect("it stops");
    assert!(format!("{:#}", copied.unwrap_err()).contains("cancelled"));
    assert_eq!(plain::list(&place.bucket, &manifest.job).await.unwrap().backups, []);
}
