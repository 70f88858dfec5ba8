//! What only a folder has: disks that are not mounted, full, or not ours, and files that were left behind.
use std::{os::unix::fs::PermissionsExt as _, path::Path};

use bytes::Bytes;
use rusuban::bucket::{Bucket, BucketError, PART, Put, folder::Folder};

use super::promises::{keys, noise, read};

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_disk_that_is_not_mounted_is_no_empty_bucket() {
    let place = tempfile::tempdir().unwrap();
    let bucket = Folder::new(place.path().join("disk/backups"));
    let told = [
        bucket.put("a", Bytes::new(), Put::Replace).await.unwrap_err(),
        bucket.upload("a").await.map(drop).unwrap_err(),
        bucket.list("").await.map(drop).unwrap_err(),
        bucket.folders("").await.unwrap_err(),
        bucket.head("a").await.unwrap_err(),
        bucket.get("a", None).await.map(drop).unwrap_err(),
        bucket.delete("a").await.unwrap_err(),
    ];
    for error in told {
        assert!(matches!(error, BucketError::Other(_)), "{error:?}");
        assert!(error.to_string().contains("is its disk mounted?"), "{error}");
    }
    assert_eq!(files(place.path()), [""; 0], "nothing was made");
}

#[tokio::test]
async fn keys_cannot_leave_the_folder() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("secret"), "outside").unwrap();
    std::fs::create_dir(place.path().join("other")).unwrap();
    let bucket = Folder::new(place.path().join("bucket"));
    let absolute = place.path().join("secret");
    for key in [
        "../secret",
        "/etc/hostname",
        "a/../../secret",
        "",
        "a//b",
        "a/",
        "./a",
        ".rusuban-part-1",
        absolute.to_str().unwrap(),
    ] {
        bucket.put(key, "x".into(), Put::Replace).await.unwrap_err();
        bucket.upload(key).await.map(drop).unwrap_err();
        bucket.get(key, None).await.map(drop).unwrap_err();
        bucket.head(key).await.unwrap_err();
        bucket.delete(key).await.unwrap_err();
    }
    bucket.abort_upload("a", "../secret").await.unwrap_err();
    bucket.abort_upload("a", "secret").await.unwrap_err();
    for prefix in ["../", "/", "a/../../", place.path().join("").to_str().unwrap()] {
        assert_eq!(keys(&bucket, prefix).await, [""; 0], "{prefix}");
        assert_eq!(bucket.folders(prefix).await.unwrap(), [""; 0], "{prefix}");
    }
    assert_eq!(std::fs::read(place.path().join("secret")).unwrap(), b"outside");
}

#[tokio::test]
async fn nothing_is_left_of_what_was_given_up() {
    let place = tempfile::tempdir().unwrap();
    let bucket = Folder::new(place.path().join("bucket"));
    let mut upload = bucket.upload("job/generation/data").await.unwrap();
    upload.part("half".into()).await.unwrap();
    let folder = place.path().join("bucket/job/generation");
    assert_eq!(files(&folder), [upload.id()]);
    upload.abort().await.unwrap();
    assert_eq!(files(&place.path().join("bucket")), [""; 0], "neither file nor folder");

    // As after kill -9: the file stays until the debt is paid.
    let upload = bucket.upload("job/generation/data").await.unwrap();
    let id = upload.id();
    std::mem::forget(upload);
    assert_eq!(files(&folder), std::slice::from_ref(&id));
    assert_eq!(bucket.folders("job/").await.unwrap(), [""; 0]);
    bucket.abort_upload("job/generation/data", &id).await.unwrap();
    assert_eq!(files(&place.path().join("bucket")), [""; 0]);
}

#[tokio::test]
async fn a_key_below_an_object_is_an_error_and_harms_neither() {
    let place = tempfile::tempdir().unwrap();
    let bucket = Folder::new(place.path().join("bucket"));
    bucket.put("a", "object".into(), Put::Replace).await.unwrap();
    bucket.put("a/b", "below".into(), Put::Replace).await.unwrap_err();
    bucket.put("c/d", "below".into(), Put::Replace).await.unwrap();
    bucket.put("c", "object".into(), Put::Replace).await.unwrap_err();
    bucket.put("c", "object".into(), Put::IfAbsent).await.unwrap_err();
    assert_eq!(keys(&bucket, "").await, ["a", "c/d"]);
    assert_eq!(read(&bucket, "a").await.unwrap(), "object");
    assert_eq!(files(&place.path().join("bucket")), ["a", "c"]);
}

#[tokio::test]
async fn a_folder_that_is_not_ours_refuses() {
    if rustix::process::geteuid().is_root() {
        // Root is refused nothing but what the kernel itself keeps.
        let error = Folder::new("/proc/sys".into()).put("a", "x".into(), Put::Replace).await.unwrap_err();
        assert!(!error.worth_retrying(), "{error:?}");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    let error = Folder::new(place.path().join("bucket")).put("a", "x".into(), Put::Replace).await.unwrap_err();
    assert!(matches!(error, BucketError::Refused(_)), "{error:?}");
}

/// A small disk of its own, where we may mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "none"])
            .arg(place.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(place))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_half_stays() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("NOT TESTED: a folder on a full disk, because this user may not mount one");
        return;
    };
    let bucket = Folder::new(disk.0.path().join("bucket"));
    bucket.put("small", "fits".into(), Put::Replace).await.unwrap();
    let error = bucket.put("job/large", noise(1, 9 << 20), Put::Replace).await.unwrap_err();
    assert!(matches!(error, BucketError::Full(_)), "{error:?}");
    let mut upload = bucket.upload("job/data").await.unwrap();
    let error = upload.part(noise(2, PART)).await.unwrap_err();
    assert!(matches!(error, BucketError::Full(_)), "{error:?}");
    upload.finish().await.unwrap_err();
    assert_eq!(keys(&bucket, "").await, ["small"]);
    assert_eq!(files(&disk.0.path().join("bucket")), ["small"]);
    // What was taken is free again.
    bucket.put("job/data", noise(3, 7 << 20), Put::Replace).await.unwrap();
}
