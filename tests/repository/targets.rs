//! What is read from storage, held against hostile bytes: each target takes any bytes for what it reads, and neither panics,
//! nor believes a number before it holds the bytes, nor goes on for ever. `cargo fuzz` calls them with what it finds, and
//! the tests with thousands of changes of real objects.
use std::{io::Read as _, path::Path, sync::Arc};

use rusuban::{
    bucket::{Bucket, Put, memory::Memory},
    check::condition::{Condition, EVERYTHING, Found},
    clock::Clock,
    plain::{self, Manifest, Reading, age},
    repository::{
        Blob, BlobKind, Building, Class, Id, IndexFile, IndexedPack, Key, KeyFile, Look, Node, NodeKind, Options,
        Place, Repository, Tree, Unlock, Wish, header_length, open_blob, read_header,
    },
    retention::{Generation, Keep, Rule, decide},
    text,
    tree::Listener,
};

/// A target: it takes any bytes.
pub(crate) type Call = fn(&[u8]);

/// Each with its name.
pub(crate) const TARGETS: [(&str, Call); 13] = [
    ("age", age),
    ("archive", archive),
    ("blob", blob),
    ("condition", condition),
    ("config", config),
    ("index", index),
    ("key_file", key_file),
    ("lock", lock),
    ("manifest", manifest),
    ("object", object),
    ("pack", pack),
    ("snapshot", snapshot),
    ("tree", tree),
];

/// Where a seed of `index` has this, the pack of the repository stands.
pub(crate) const PACK: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// A piece of a file that the repository has.
pub(crate) const PIECE: &[u8] = b"a piece of a file";
/// A folder that it has.
pub(crate) const FOLDER: &str = "{\"nodes\":[]}\n";

/// A condition that a person wrote, and on a line below it the page that it is about.
fn condition(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (condition, page) = text.split_once('\n').unwrap_or((&text, "<h1>Welcome</h1>{\"a\":[1]}"));
    match Condition::parse(condition, &EVERYTHING) {
        Ok(read) => {
            let header = |_: &str| Some("text/html".to_owned());
            let found =
                Found { status: Some(200), body: Some(page), size: Some(1), header: &header, ..Found::default() };
            let told = read.failing(&found).into_iter().map(|failing| failing.told).collect::<String>();
            assert!(!told.chars().any(char::is_control), "{told}");
            // What is written back says the same.
            let written = read.to_string();
            assert_eq!(Condition::parse(&written, &EVERYTHING).expect("it reads what it wrote").to_string(), written);
        }
        Err(wrong) => assert!(condition.get(wrong.at.clone()).is_some(), "{wrong:?}"),
    }
}

#[derive(Debug)]
struct Deaf;

impl Listener for Deaf {
    fn info(&self, _: &str) {}

    fn warn(&self, _: &str) {}

    fn progress(&self, _: u64, _: Option<u64>) {}
}

fn run<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_keep_alive(std::time::Duration::from_secs(60))
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

fn bucket() -> Arc<dyn Bucket> {
    Arc::new(Memory::new(Clock::system()))
}

async fn put(bucket: &Arc<dyn Bucket>, name: &str, bytes: Vec<u8>) {
    bucket.put(name, bytes.into(), Put::Replace).await.expect("memory takes all");
}

fn key() -> Key {
    Key::from_bytes(&[7; 64])
}

const CONFIG: &[u8] = br#"{"version":2,"id":"x","chunker_polynomial":"25b468838dcb75"}"#;

/// A repository in memory: empty, or with a pack that holds [`PIECE`], [`FOLDER`] and `tree`.
async fn repository(config: &[u8], chunking: Option<&[u8]>) -> anyhow::Result<Repository> {
    let bucket = bucket();
    put(&bucket, "config", key().seal(config)?).await;
    if let Some(chunking) = chunking {
        put(&bucket, "rusuban", key().seal(chunking)?).await;
    }
    let options = Options { threads: 1, connections: 1, ..Options::default() };
    Repository::open(bucket, &Unlock::Key(Box::new(key())), options).await
}

async fn with_pack(tree: &[u8]) -> (Repository, IndexedPack) {
    let repository = repository(CONFIG, None).await.expect("it opens");
    let mut building = Building::default();
    for (kind, bytes) in [(BlobKind::Data, PIECE), (BlobKind::Tree, FOLDER.as_bytes()), (BlobKind::Tree, tree)] {
        building.add(Id::of(bytes), kind, &key().seal(bytes).expect("it is sealed"), None).expect("there is room");
    }
    let pack = building.finish(&key()).expect("it is sealed");
    repository.objects().put(Class::Pack, &pack.id, pack.bytes.clone()).await.expect("memory takes all");
    (repository, IndexedPack::new(pack.id, &pack.blobs))
}

async fn check(repository: &Repository) {
    let listener: Arc<dyn Listener> = Arc::new(Deaf);
    let look = Look { snapshots: None, data: 1.0, part: 0 };
    // What is damaged is found or told: both are fine.
    let _ = repository.check(&look, &listener, &tokio_util::sync::CancellationToken::new()).await;
}

/// Restores the folder `tree`, and looks whether anything outside of it was touched.
async fn restore(repository: &Repository, tree: Id) {
    let Ok(index) = repository.index().await else { return };
    let root = tempfile::tempdir().expect("a folder");
    let outside = root.path().join("outside");
    std::fs::write(&outside, "as it was").expect("a file");
    std::os::unix::fs::symlink(&outside, root.path().join("link")).expect("a link");
    let mut node = Node::new(b"back".to_vec(), NodeKind::Dir);
    node.subtree = Some(tree);
    let wish = Wish {
        to: root.path().join("back"),
        replace: false,
        dry_run: false,
        only: None,
        id: "1".into(),
        is_database: false,
    };
    // What cannot be restored is told.
    let _ = repository.restore(&Arc::new(index), node, wish, Arc::new(Deaf), Default::default()).await;
    looks_as_before(root.path());
}

fn looks_as_before(root: &Path) {
    let mut names: Vec<_> = std::fs::read_dir(root)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name != "back")
        .collect();
    names.sort();
    // A restore that failed may leave what it had begun, under its own name.
    names.retain(|name| !name.to_string_lossy().starts_with(".back"));
    assert_eq!(names, ["link", "outside"], "something was made outside");
    assert_eq!(std::fs::read(root.join("outside")).expect("a file"), b"as it was", "what is outside was changed");
    assert!(root.join("link").is_symlink());
}

/// A pack, and a pack's header once it is opened.
fn pack(bytes: &[u8]) {
    let fits = |blobs: &[Blob], header: usize, size: u64| {
        assert!(blobs.len() <= header / 37, "more blobs than the header has room for");
        assert!(blobs.iter().all(|blob| u64::from(blob.offset) + u64::from(blob.length) <= size));
    };
    if let Some(last) = bytes.last_chunk()
        && let Ok(length) = header_length(*last, bytes.len() as u64)
        && let Ok(blobs) = read_header(&key(), &bytes[bytes.len() - length as usize..], bytes.len() as u64)
    {
        fits(&blobs, bytes.len(), bytes.len() as u64);
    }
    let mut tail = key().seal(bytes).expect("it is sealed");
    tail.extend_from_slice(&[0; 4]);
    for size in [0, tail.len() as u64, 1 << 20, u64::MAX] {
        if let Ok(blobs) = read_header(&key(), &tail, size) {
            fits(&blobs, bytes.len(), size);
        }
    }
    // The size that fits it, as its own entries say.
    let told: u64 = bytes
        .chunks(41)
        .filter_map(|entry| Some(u64::from(u32::from_le_bytes(*entry.get(1..5)?.first_chunk()?))))
        .sum();
    if let Ok(blobs) = read_header(&key(), &tail, told + tail.len() as u64) {
        fits(&blobs, bytes.len(), told);
    }
    // As other bytes behind it say it.
    run(async {
        let repository = repository(CONFIG, None).await.expect("it opens");
        let id = Id::of(bytes);
        repository.objects().put(Class::Pack, &id, bytes.to_vec().into()).await.expect("memory takes all");
        let index = repository.index().await.expect("it is empty");
        let _ = repository.adopt(&index).await;
        for size in [0, 3, bytes.len() as u64, u64::MAX] {
            let _ = repository.header(&id, size).await;
        }
    });
}

/// A blob: four bytes for its size before compression, and what is compressed.
fn blob(bytes: &[u8]) {
    let Some((size, content)) = bytes.split_first_chunk::<4>() else { return };
    let plain = zstd_of(content);
    for plain_size in [None, Some(u32::from_le_bytes(*size)), Some(plain.len() as u32), Some(u32::MAX)] {
        let mut sealed = key().seal(content).expect("it is sealed");
        let length = sealed.len() as u32;
        let blob = Blob { id: Id::of(&plain), kind: BlobKind::Data, offset: 0, length, plain: plain_size };
        let opened = open_blob(&key(), &Place { pack: Id([0; 32]), blob }, &mut sealed);
        assert!(opened.is_err() || opened.is_ok_and(|opened| opened == plain));
    }
}

fn zstd_of(content: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    if let Ok(decoder) = zstd::stream::read::Decoder::new(content) {
        let _ = decoder.take(1 << 20).read_to_end(&mut plain);
    }
    plain
}

/// Any object that is JSON, as it is before it is sealed: compressed or not.
fn object(bytes: &[u8]) {
    run(async {
        let repository = repository(CONFIG, None).await.expect("it opens");
        for sealed in [key().seal(bytes).expect("it is sealed"), bytes.to_vec()] {
            let _ = repository.objects().open(Class::Index, &Id::of(&sealed), sealed);
        }
    });
}

/// An index object: all that reads it, and a check and a restore by it.
fn index(bytes: &[u8]) {
    run(async {
        let (repository, pack) = with_pack(b"{\"nodes\":[]}").await;
        let json = String::from_utf8_lossy(bytes).replace(PACK, &pack.id.to_string()).into_bytes();
        repository.objects().save(Class::Index, json).await.expect("memory takes all");
        let tree = Id::of(FOLDER.as_bytes());
        let snapshot = format!(r#"{{"time":"2026-11-21T03:15:00Z","tree":"{tree}","paths":["/"]}}"#);
        repository.objects().save(Class::Snapshot, snapshot.into_bytes()).await.expect("memory takes all");
        check(&repository).await;
        let Ok(index) = repository.index().await else { return };
        for place in index.all().take(8) {
            assert!(index.find(place.blob.kind, &place.blob.id).is_some());
            let _ = repository.blob(&index, place.blob.kind, &place.blob.id).await;
        }
        assert!(index.len() <= bytes.len() && index.packs().len() <= bytes.len());
        restore(&repository, tree).await;
    });
}

/// What is in a folder: read, written again, checked and restored.
fn tree(bytes: &[u8]) {
    if let Ok(tree) = Tree::from_json(bytes) {
        let again = Tree::from_json(&tree.to_json().expect("it is written")).expect("what we write, we read");
        assert_eq!(again.nodes.len(), tree.nodes.len());
        for (node, again) in tree.nodes.iter().zip(&again.nodes) {
            assert!(tree.find(&node.name).is_some() && node.mode() <= 0o7777);
            assert_eq!((&node.name, node.target(), node.mtime), (&again.name, again.target(), again.mtime));
        }
    }
    run(async {
        let (repository, pack) = with_pack(bytes).await;
        let index = IndexFile { packs: vec![pack], ..IndexFile::default() };
        let json = serde_json::to_vec(&index).expect("it is written");
        repository.objects().save(Class::Index, json).await.expect("memory takes all");
        let tree = Id::of(bytes);
        let snapshot = format!(r#"{{"time":"2026-11-21T03:15:00Z","tree":"{tree}","paths":["/"]}}"#);
        repository.objects().save(Class::Snapshot, snapshot.into_bytes()).await.expect("memory takes all");
        check(&repository).await;
        restore(&repository, tree).await;
    });
}

/// A snapshot: listed, and what retention makes of it.
fn snapshot(bytes: &[u8]) {
    run(async {
        let repository = repository(CONFIG, None).await.expect("it opens");
        repository.objects().save(Class::Snapshot, bytes.to_vec()).await.expect("memory takes all");
        let (found, _) = repository.snapshots().await.expect("what is damaged is told beside");
        let now = "2026-11-21T03:15:00Z".parse().expect("a time");
        let made: Vec<Generation> = found
            .iter()
            .map(|(id, snapshot)| {
                let _ = snapshot.job();
                serde_json::to_vec(snapshot).expect("it is written");
                Generation { id: id.to_string(), at: snapshot.time.to_utc(), bytes: 0, good: true }
            })
            .collect();
        let keep = Keep { last: 1, hourly: 1, daily: 1, weekly: 1, monthly: 1, yearly: 1 };
        for zone in [chrono_tz::Tz::UTC, chrono_tz::Tz::Pacific__Kiritimati, chrono_tz::Tz::Pacific__Niue] {
            let _ = decide(&made, Rule::Keep(keep), zone, now);
            for generation in &made {
                let _ = (text::ago(generation.at, now), text::moment(generation.at, zone));
            }
        }
        check(&repository).await;
    });
}

/// The repository's settings, and ours beside them.
fn config(bytes: &[u8]) {
    run(async {
        let _ = repository(bytes, None).await;
        let opened = repository(CONFIG, Some(bytes)).await;
        assert!(opened.is_err() || opened.is_ok_and(|opened| opened.cutter().max() <= 128 << 20));
    });
}

/// A key file; one that asks for much is refused, one that asks for little is tried.
fn key_file(bytes: &[u8]) {
    let _ = Key::from_json(bytes);
    let Ok(file) = serde_json::from_slice::<KeyFile>(bytes) else { return };
    let told = serde_json::to_value(&file).expect("it is written");
    let number = |name: &str| u128::from(told[name].as_u64().unwrap_or(0));
    let work = 128 * number("N") * number("r") * number("p");
    if work <= 1 << 16 {
        let _ = file.open(b"password");
    } else if 128 * number("N") * number("r") > 1 << 30 || work > 4 << 30 {
        assert!(file.open(b"password").is_err(), "it asks for too much");
    }
}

/// A lock: read, judged and removed.
fn lock(bytes: &[u8]) {
    run(async {
        let repository = repository(CONFIG, None).await.expect("it opens");
        repository.objects().save(Class::Lock, bytes.to_vec()).await.expect("memory takes all");
        let clock = Clock::system();
        let _ = repository.locks().await;
        let _ = repository.unlock(false, "here", &clock).await;
        repository.unlock(true, "here", &clock).await.expect("all are removed");
        assert_eq!(repository.objects().list(Class::Lock).await.expect("memory lists"), [], "a lock stays for ever");
    });
}

/// The manifest of a plain backup: listed, and each source restored.
fn manifest(bytes: &[u8]) {
    const ID: &str = "2026-11-21T03-15-00Z";
    let job = "photos".parse().expect("a name");
    run(async {
        let bucket = bucket();
        put(&bucket, &format!("photos/{ID}/manifest.json"), bytes.to_vec()).await;
        put(&bucket, &format!("photos/{ID}/dump.zst"), zstd::encode_all(PIECE, 1).expect("it is compressed")).await;
        let listing = plain::list(&bucket, &job).await.expect("what is damaged is told beside");
        assert_eq!(listing.backups.len() + listing.damaged.len(), 1);
        let Ok(manifest) = Manifest::read(&job, ID, bytes) else { return };
        let _ = (manifest.plain_bytes(), manifest.stored_bytes());
        let _ = plain::verify(&bucket, &manifest, &Reading::default()).await;
        for source in manifest.sources.iter().take(3) {
            let root = tempfile::tempdir().expect("a folder");
            let to = root.path().join(plain::file_name(source));
            let _ = plain::restore(&bucket, &manifest, Some(&source.name), &to, false, &Reading::default()).await;
        }
        let _ = plain::delete(&bucket, &manifest).await;
    });
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = plain::time_of(text);
    }
}

/// The tar archive of a plain backup: restored, with nothing outside of its folder touched.
fn archive(bytes: &[u8]) {
    let job = "photos".parse().expect("a name");
    let packed = zstd::encode_all(bytes, 1).expect("it is compressed");
    let fingerprint = |bytes: &[u8]| serde_json::json!({ "bytes": bytes.len(), "sha256": Id::of(bytes).to_string() });
    let manifest = serde_json::json!({
        "format": 1, "job": "photos", "id": "x", "at": "2026-11-21T03:15:00Z", "finished": "2026-11-21T03:15:00Z",
        "host": "here", "rusuban": "0.1.0",
        "sources": [{ "name": "files", "kind": "tree", "key": "photos/x/files.tar.zst", "entries": 1,
            "stored": fingerprint(&packed), "plain": fingerprint(bytes) }],
    });
    let manifest = Manifest::read(&job, "x", manifest.to_string().as_bytes()).expect("it is right");
    run(async {
        let bucket = bucket();
        put(&bucket, "photos/x/files.tar.zst", packed).await;
        let root = tempfile::tempdir().expect("a folder");
        std::fs::write(root.path().join("outside"), "as it was").expect("a file");
        std::os::unix::fs::symlink("outside", root.path().join("link")).expect("a link");
        let _ = plain::restore(&bucket, &manifest, None, &root.path().join("back"), false, &Reading::default()).await;
        looks_as_before(root.path());
    });
}

/// Something encrypted with age.
fn age(bytes: &[u8]) {
    let identity: age::Identity = IDENTITY.parse().expect("a key");
    let Ok(mut decryptor) = age::Decryptor::new(bytes, &[identity]) else { return };
    let mut plain = Vec::new();
    let _ = decryptor.read_to_end(&mut plain);
    assert!(plain.len() <= bytes.len());
}

/// Whose secret opens the seeds of `age`.
pub(crate) const IDENTITY: &str = "AGE-SECRET-KEY-16ERQ4E3R8K636H3ZVVLP8X8UGSGVDM89P0EJDF0CZKUDL5ER84JSPH0MJY";
