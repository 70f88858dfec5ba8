//! Whatever lies in the bucket: what reads it says what is wrong, and neither panics, nor asks for memory that a number
//! promises, nor goes on for ever. The targets are those of `fuzz/`.
use std::{fs, io::Write as _, path::Path, sync::Arc};

use async_trait::async_trait;
use rusuban::{
    bucket::{Bucket, folder::Folder},
    model::DebtId,
    plain::{self, age},
    repository::{
        BlobKind, Building, Class, Id, IndexFile, IndexedPack, Key, Look, Node, NodeKind, Repository, Tree, Unlock,
    },
    tree::Listener,
};

use super::{
    golden::unpacked,
    support::{PASSWORD, Place, SMALL, Told},
    targets::{FOLDER, IDENTITY, PACK, PIECE, TARGETS},
};
use crate::support::{
    mutate::{Target, bombard},
    trees::sh,
};

#[test]
fn hostile_bytes_are_refused_and_cost_nothing() {
    bombard("repository::hostile::hostile_bytes_are_refused_and_cost_nothing", || {
        let seeds = seeds();
        let target = |(name, call)| {
            let seeds: Vec<Vec<u8>> =
                seeds.iter().filter(|(of, _)| *of == name).map(|(_, bytes)| bytes.clone()).collect();
            assert!(!seeds.is_empty(), "{name} has no seed");
            // Those that write files take longer.
            let rounds = if matches!(name, "tree" | "archive" | "index" | "manifest") { 400 } else { 1_500 };
            Target { name, call, seeds, rounds }
        };
        TARGETS.map(target).into()
    });
}

#[test]
#[ignore = "writes the seeds to fuzz/corpus, where cargo-fuzz begins"]
fn write_seeds_for_cargo_fuzz() {
    for (target, bytes) in seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(Id::of(&bytes).to_string()), bytes).unwrap();
    }
}

/// Real objects, each for the target that reads them.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut seeds = crafted();
        for name in ["restic-0.14-v2", "restic-0.14-v1", "rusuban-0.1"] {
            of_a_repository(&unpacked(name), &mut seeds).await;
        }
        of_plain_backups(&mut seeds).await;
        seeds
    })
}

/// Objects that stock restic and we have stored.
async fn of_a_repository(place: &Place, seeds: &mut Vec<(&'static str, Vec<u8>)>) {
    let repository = place.open().await;
    let (objects, file) = (repository.objects(), |name: &str| fs::read(place.path("repository").join(name)).unwrap());
    seeds.push(("config", objects.key().open(&file("config")).unwrap()));
    for (target, class) in [("index", Class::Index), ("snapshot", Class::Snapshot)] {
        for (id, _) in objects.list(class).await.unwrap() {
            seeds.push((target, objects.load(class, &id).await.unwrap()));
            seeds.push(("object", objects.key().open(&objects.raw(class, &id).await.unwrap()).unwrap()));
        }
    }
    for (id, _) in objects.list(Class::Key).await.unwrap() {
        let mut key: serde_json::Value = serde_json::from_slice(&file(&Class::Key.key(&id))).unwrap();
        seeds.push(("key_file", key.to_string().into_bytes()));
        // One that is tried at once.
        for (name, value) in [("N", 16), ("r", 1), ("p", 1)] {
            key[name] = value.into();
        }
        seeds.push(("key_file", key.to_string().into_bytes()));
    }
    seeds.push(("key_file", objects.key().to_json()));
    let index = repository.index().await.unwrap();
    for place in index.all() {
        if place.blob.kind == BlobKind::Tree {
            seeds.push(("tree", repository.blob(&index, place.blob.kind, &place.blob.id).await.unwrap()));
        }
        let Some(size) = place.blob.plain.filter(|size| *size < 100_000) else { continue };
        let begin = u64::from(place.blob.offset);
        let sealed = repository.part(&place.pack, begin..begin + u64::from(place.blob.length)).await.unwrap();
        seeds.push(("blob", [size.to_le_bytes().to_vec(), objects.key().open(&sealed).unwrap()].concat()));
    }
    for (id, size) in objects.list(Class::Pack).await.unwrap() {
        let pack = objects.raw(Class::Pack, &id).await.unwrap();
        let header = *pack.last_chunk().unwrap();
        let length = rusuban::repository::header_length(header, size).unwrap() as usize;
        seeds.push(("pack", objects.key().open(&pack[pack.len() - length..pack.len() - 4]).unwrap()));
        if pack.len() < 20_000 {
            seeds.push(("pack", pack));
        }
    }
}

/// Objects that fit what the targets have in memory, and some that no honest program stores.
fn crafted() -> Vec<(&'static str, Vec<u8>)> {
    let (piece, folder) = (Id::of(PIECE), Id::of(FOLDER.as_bytes()));
    let (first, second) = (PIECE.len() + 32, FOLDER.len() + 32);
    let index = |change: &str| {
        let (from, to) = change.split_once('→').unwrap_or(("", ""));
        format!(
            r#"{{"supersedes":["{piece}"],"packs":[{{"id":"{PACK}","blobs":[
            {{"id":"{piece}","type":"data","offset":0,"length":{first}}},
            {{"id":"{folder}","type":"tree","offset":{first},"length":{second},"uncompressed_length":0}}]}}]}}"#
        )
        .replace(from, to)
        .into_bytes()
    };
    let mut seeds: Vec<(&str, Vec<u8>)> = [
        "x→x".to_owned(),
        format!("\"length\":{second}→\"length\":4294967295"),
        format!("\"offset\":{first}→\"offset\":4294967290"),
        format!("\"length\":{first}→\"length\":3"),
        "uncompressed_length\":0→uncompressed_length\":4294967295".to_owned(),
    ]
    .iter()
    .map(|change| ("index", index(change)))
    .collect();

    let node = |name: &str, kind: NodeKind| {
        let mut node = Node::new(name.as_bytes().to_vec(), kind);
        node.set_mode(0o7777);
        node.content = (kind == NodeKind::File).then(|| vec![piece, piece]);
        node.subtree = (kind == NodeKind::Dir).then_some(folder);
        node.links = 2;
        node.inode = 5;
        node.uid = u32::MAX;
        node.device = u64::MAX;
        node
    };
    let mut link = node("a", NodeKind::Symlink);
    link.set_target(b"../outside".to_vec());
    let mut all: Vec<Node> = [
        ("b", NodeKind::File),
        ("c", NodeKind::File),
        ("a", NodeKind::Dir),
        ("a", NodeKind::File),
        ("p", NodeKind::Fifo),
        ("d", NodeKind::CharDev),
        ("s", NodeKind::Socket),
    ]
    .map(|(name, kind)| node(name, kind))
    .into();
    all.insert(0, link);
    let tree = Tree { nodes: all }.to_json().unwrap();
    let text = String::from_utf8(tree.clone()).unwrap();
    seeds.push(("tree", text.replace("1970-01-01T00:00:00Z", "2016-12-31T23:59:60.073741823Z").into_bytes()));
    seeds.push(("tree", tree));
    seeds.push(("tree", FOLDER.into()));

    seeds.push(("config", br#"{"chunker":"fastcdc","average":65536}"#.to_vec()));
    seeds.push(("config", br#"{"chunker":"rabin","average":18446744073709551615}"#.to_vec()));
    seeds.push(("lock", br#"{"time":"2026-11-21T03:15:00+01:00","exclusive":false,"hostname":"here","username":"root","pid":1,"uid":0,"gid":0}"#.to_vec()));
    seeds.push(("lock", Vec::new()));
    for condition in [
        "status == 2xx and (body contains \"Welcome\" or not time < 800ms) and certificate > 14d",
        "json(\"$.a[0]['b c'][*]\") >= 1.5 and count(css(\"h1 > a:nth-child(2)\")) < 3\n<h1>a<a>b<a>c</h1>",
        "header('x') matches \"^[a-z]+\\d\" or size > 2 KiB or count(\"a\") == 2\naa",
    ] {
        seeds.push(("condition", condition.into()));
    }
    for time in ["-262143-01-01T00:00:00Z", "+262142-12-31T23:59:59-14:00", "2016-12-31T23:59:60.5Z"] {
        seeds.push(("snapshot", format!(r#"{{"time":"{time}","tree":"{folder}","tags":["job=a"]}}"#).into_bytes()));
        seeds.push((
            "lock",
            format!(r#"{{"time":"{time}","exclusive":true,"hostname":"here","pid":4294967295}}"#).into_bytes(),
        ));
    }
    // A window of 128 MiB, and a frame that says it holds 2^60 bytes.
    seeds.push(("object", [&[2, 0x28, 0xb5, 0x2f, 0xfd, 0, 0x88][..], &[1, 0, 0]].concat()));
    seeds.push((
        "object",
        [&[2, 0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x88, 0, 0, 0, 0, 0, 0, 0, 0x10][..], &[1, 0, 0]].concat(),
    ));
    // A header's length that says the whole pack.
    seeds.push(("pack", [vec![0; 100], 96_u32.to_le_bytes().to_vec()].concat()));
    let mut key =
        Key::from_bytes(&[7; 64]).seal(&[vec![0], u32::MAX.to_le_bytes().to_vec(), vec![9; 32]].concat()).unwrap();
    key.extend((key.len() as u32).to_le_bytes());
    seeds.push(("pack", key));
    seeds
}

#[async_trait]
impl plain::Watcher for Told {
    async fn upload_begun(&self, _: &str, _: &str) -> anyhow::Result<DebtId> {
        Ok(DebtId(1))
    }

    async fn upload_ended(&self, _: DebtId) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A plain backup of a folder and of a stream: manifest, archive, and what is encrypted.
async fn of_plain_backups(seeds: &mut Vec<(&'static str, Vec<u8>)>) {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir_all(original.join("sub")).unwrap();
    fs::write(original.join("file"), "some text\n".repeat(100)).unwrap();
    fs::hard_link(original.join("file"), original.join("sub/again")).unwrap();
    std::os::unix::fs::symlink("../file", original.join("sub/link")).unwrap();
    fs::File::create(original.join("holes")).unwrap().set_len(300_000).unwrap();
    fs::write(original.join("n".repeat(200)), "a long name").unwrap();
    sh(&format!(
        "cd '{}' && setfattr -n user.colour -v 'blue=%41' file && mkfifo pipe && touch -d '1969-12-31 23:59:58.25 UTC' sub",
        original.display()
    ));
    let bucket: Arc<dyn Bucket> = Arc::new(Folder::new(place.path("bucket")));
    let setting = plain::Setting {
        bucket: Arc::clone(&bucket),
        job: "photos".parse().unwrap(),
        at: "2026-11-21T03:15:00Z".parse().unwrap(),
        options: plain::Options::default(),
        spool: place.path("spool"),
        watcher: Arc::clone(&place.told) as Arc<dyn plain::Watcher>,
        cancelled: place.cancelled.clone(),
    };
    let mut writer = plain::Writer::begin(setting).await.unwrap();
    writer.tree("files", rusuban::tree::Tree::at(&original)).await.unwrap();
    let manifest = writer.finish("here".into(), &place.clock).await.unwrap();
    seeds.push(("manifest", serde_json::to_vec(&manifest).unwrap()));
    let stored = fs::read(place.path("bucket").join(&manifest.sources[0].key)).unwrap();
    seeds.push(("archive", zstd::decode_all(stored.as_slice()).unwrap()));
    let by_tar = place.path("by-tar");
    for more in ["", "--sparse", "--pax-option=size:=18446744073709551615", "--pax-option=uid:=4294967295"] {
        sh(&format!(
            "tar -C '{}' --format=posix --xattrs {more} -cf '{}' original",
            place.root.path().display(),
            by_tar.display()
        ));
        seeds.push(("archive", fs::read(&by_tar).unwrap()));
    }
    let fingerprint = |bytes: &[u8]| serde_json::json!({ "bytes": bytes.len(), "sha256": Id::of(bytes).to_string() });
    let stored = zstd::encode_all(PIECE, 1).unwrap();
    for (uid, modified) in [(0, "2026-11-21T03:15:00Z"), (u32::MAX, "2016-12-31T23:59:60.999999999Z")] {
        let source = serde_json::json!({
            "name": "dump", "kind": "stream", "key": "photos/2026-11-21T03-15-00Z/dump.zst", "entries": 1,
            "stored": fingerprint(&stored), "plain": fingerprint(PIECE),
            "file": { "mode": u32::MAX, "uid": uid, "gid": uid, "modified": modified },
        });
        let huge = serde_json::json!({ "bytes": u64::MAX, "sha256": "" });
        let mut other = source.clone();
        (other["name"], other["stored"], other["plain"]) = ("other".into(), huge.clone(), huge);
        let mut manifest = serde_json::to_value(&manifest).unwrap();
        manifest["sources"] = serde_json::json!([source, other]);
        seeds.push(("manifest", manifest.to_string().into_bytes()));
    }

    let identity: age::Identity = IDENTITY.parse().unwrap();
    for length in [0, 10, 70_000] {
        let recipients = [age::Identity::generate().unwrap().recipient(), identity.recipient()];
        let mut writer = age::Encryptor::new(Vec::new(), &recipients).unwrap();
        writer.write_all(&vec![7; length]).unwrap();
        seeds.push(("age", writer.finish().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_cannot_be_read_stops_all_and_can_be_removed() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), "text").unwrap();
    let repository = place.create(SMALL).await;
    fs::create_dir_all(place.path("repository/locks")).unwrap();
    fs::write(place.path("repository").join(Class::Lock.key(&Id([1; 32]))), b"").unwrap();
    let error = format!("{:#}", place.back_up(&repository, &original).await.unwrap_err());
    assert!(error.contains("unlock NAME --all") && error.contains("lock 01010101 is damaged"), "{error}");
    let done = repository.unlock(false, "here", &place.clock).await.unwrap();
    assert_eq!((done.unreadable.len(), done.left), (0, 1));
    let done = repository.unlock(true, "here", &place.clock).await.unwrap();
    assert_eq!((done.unreadable, done.left), (vec![Id([1; 32])], 0));
    place.back_up(&repository, &original).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_key_does_not_keep_another_from_opening() {
    let place = Place::new();
    place.create(SMALL).await;
    let keys = place.path("repository/keys");
    let whole = fs::read_dir(&keys).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&whole).unwrap();
    // Its name sorts before any other.
    let bad = keys.join("0".repeat(64));
    for (from, to, why) in [
        ("\"N\":32768", "\"N\":1099511627776", "more than a GiB"),
        ("\"p\":2", "\"p\":4000000000", "rounds"),
        ("scrypt", "argon2id", "argon2id"),
        ("\"salt\":\"", "\"salt\":\"*", "its salt"),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&bad, text.replace(from, to)).unwrap();
        place.open().await;
        fs::rename(&whole, place.path("kept")).unwrap();
        let unlock = Unlock::Password(PASSWORD.into());
        let opened = Repository::open(Arc::clone(&place.bucket), &unlock, place.options()).await;
        let error = format!("{:#}", opened.unwrap_err());
        assert!(error.contains(why) && error.contains("the key 00000000 is damaged"), "{error}");
        fs::rename(place.path("kept"), &whole).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_far_too_large_is_told_and_stops_nothing_else() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    let repository = place.create(SMALL).await;
    place.back_up(&repository, &original).await.unwrap();
    fs::create_dir_all(place.path("repository/locks")).unwrap();
    for class in [Class::Key, Class::Lock, Class::Snapshot] {
        let path = place.path("repository").join(class.key(&Id([0; 32])));
        fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
    }
    let repository = place.open().await;
    let (snapshots, damaged) = repository.snapshots().await.unwrap();
    assert_eq!((snapshots.len(), damaged.len()), (1, 1));
    assert!(damaged[0].to_string().contains("snapshot 00000000 is damaged: it has more than"), "{damaged:?}");
    let done = repository.unlock(true, "here", &place.clock).await.unwrap();
    assert_eq!((done.unreadable, done.left), (vec![Id([0; 32])], 0));
    place.back_up(&repository, &original).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_may_lie_in_each_other_as_deep_as_they_like() {
    const DEPTH: usize = 5_000;
    let place = Place::new();
    let repository = place.create(SMALL).await;
    let mut building = Building::default();
    let mut file = Node::new(b"lost".to_vec(), NodeKind::File);
    file.content = Some(vec![Id([3; 32])]);
    let mut nodes = vec![file];
    for _ in 0..DEPTH {
        let json = Tree { nodes }.to_json().unwrap();
        let id = Id::of(&json);
        building.add(id, BlobKind::Tree, &repository.objects().key().seal(&json).unwrap(), None).unwrap();
        nodes = vec![Node::new(b"f".to_vec(), NodeKind::Dir)];
        nodes[0].subtree = Some(id);
    }
    let pack = building.finish(repository.objects().key()).unwrap();
    repository.objects().put(Class::Pack, &pack.id, pack.bytes).await.unwrap();
    let index = IndexFile { packs: vec![IndexedPack::new(pack.id, &pack.blobs)], ..IndexFile::default() };
    repository.objects().save(Class::Index, serde_json::to_vec(&index).unwrap()).await.unwrap();
    let snapshot = format!(r#"{{"time":"2026-11-21T03:15:00Z","tree":"{}"}}"#, nodes[0].subtree.unwrap());
    repository.objects().save(Class::Snapshot, snapshot.into_bytes()).await.unwrap();
    let listener = Arc::clone(&place.told) as Arc<dyn Listener>;
    let look = Look { snapshots: None, data: 0.0, part: 0 };
    let found = repository.check(&look, &listener, &place.cancelled).await.unwrap();
    assert_eq!((found.touched.len(), found.touched[0].count), (1, 1));
    assert_eq!(found.touched[0].files[0].components().count(), DEPTH + 1);
    assert!(found.touched[0].files[0].ends_with("f/lost"));
}
