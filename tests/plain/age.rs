//! Encrypted backups, judged by the `age` program both ways.
use rusuban::tree::Tree;
use std::{
    fs,
    io::{Read, Write},
};

use rusuban::plain::{
    Reading,
    age::{Decryptor, Encryptor, Identity},
    restore, verify,
};

use super::support::Place;
use crate::support::trees::{assert_equal, sh};

#[tokio::test(flavor = "multi_thread")]
async fn age_and_gnu_tar_open_an_encrypted_backup_and_a_stranger_does_not() {
    let mut place = Place::new();
    let (original, keys, by_age) = (place.path("original"), place.path("key"), place.path("by-age"));
    for folder in [&original, &by_age] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(original.join("file"), vec![7; 300_000]).unwrap();
    sh(&format!("age-keygen -o '{}' 2>/dev/null", keys.display()));
    let identities = Identity::parse_file(&fs::read_to_string(&keys).unwrap()).unwrap();
    let other = Identity::generate().unwrap();
    place.options.recipients = vec![identities[0].recipient(), other.recipient()];
    let manifest = place.back_up(Tree::at(&original)).await.unwrap();
    let key = &manifest.sources[0].key;
    assert!(key.ends_with("files.tar.zst.age"), "{key}");
    sh(&format!(
        "age -d -i '{}' '{}' | zstd -dc | tar -xp -C '{}' -f -",
        keys.display(),
        place.object(key).display(),
        by_age.display()
    ));
    assert_equal(&original, &by_age.join("original"));

    let with = |identity: Identity| Reading { identities: vec![identity], ..Reading::default() };
    for (name, identity) in [("one", identities[0].clone()), ("two", other)] {
        let back = place.path(name);
        restore(&place.bucket, &manifest, None, &back, false, &with(identity)).await.unwrap();
        assert_equal(&original, &back);
    }
    let unopened = verify(&place.bucket, &manifest, &Reading::default()).await.unwrap();
    assert_eq!(unopened.sealed, ["files"]);
    let stranger = with(Identity::generate().unwrap());
    let back = place.path("stranger");
    let error = restore(&place.bucket, &manifest, None, &back, false, &stranger).await.unwrap_err();
    assert!(format!("{error:#}").contains("none of the keys given opens it"), "{error:#}");
    assert!(!back.exists());
}

#[test]
fn what_age_encrypts_we_decrypt_and_the_other_way_round() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (ours, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    fs::write(at("key"), ours.reveal()).unwrap();
    for length in [0, 1, 65_535, 65_536, 65_537, 131_072, 1_000_000_usize] {
        let plain: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0]).collect();
        fs::write(at("plain"), &plain).unwrap();
        sh(&format!(
            "cd '{}'; age -r {} -r {} -o theirs plain",
            folder.path().display(),
            other.recipient(),
            ours.recipient()
        ));
        let mut back = Vec::new();
        let stored = fs::read(at("theirs")).unwrap();
        Decryptor::new(stored.as_slice(), std::slice::from_ref(&ours)).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == plain, "theirs, {length}");
        let mut writer = Encryptor::new(Vec::new(), &[ours.recipient()]).unwrap();
        writer.write_all(&plain).unwrap();
        fs::write(at("ours"), writer.finish().unwrap()).unwrap();
        sh(&format!("cd '{}'; age -d -i key ours > back; cmp back plain", folder.path().display()));
    }
}
