//! Trees of files to be kept, and judges of what comes back.
use std::{
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
    process::Command,
};

/// One of each kind of file that Linux has, with names, sizes and times that break careless programs.
pub(crate) fn every_kind_of_file(at: &Path) {
    fs::create_dir_all(at.join("a/deep/er")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(at.join(name), bytes).unwrap();
    write("empty", b"");
    write("one", b"1");
    write("block", &[7; 512]);
    write("more than a buffer", &(0..700_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    write("a/line\nbreak", b"x");
    write("a/ leading space and ünïcode 漢字", b"x");
    write(&format!("a/deep/{}", "n".repeat(255)), b"long name");
    fs::write(at.join("a").join(std::ffi::OsStr::from_bytes(b"not \xff utf-8 \xc3")), b"x").unwrap();
    let mut folder = at.join("a/deep/er");
    for _ in 0..20 {
        folder = folder.join("and-again-a-folder-with-a-name");
    }
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("down here"), b"deep").unwrap();
    fs::hard_link(at.join("one"), at.join("a/one again")).unwrap();
    fs::hard_link(at.join("one"), at.join("zzz")).unwrap();
    std::os::unix::fs::symlink("one", at.join("link")).unwrap();
    std::os::unix::fs::symlink("../nowhere", at.join("a/dangling")).unwrap();
    std::os::unix::fs::symlink("t".repeat(300), at.join("a/long link")).unwrap();
    fs::hard_link(at.join("link"), at.join("a/link again")).unwrap();
    sparse(&at.join("holes"), 50 << 20, &[(0, 10), (3 << 20, 4097), (40 << 20, 70_000)]);
    sparse(&at.join("only a hole"), 10 << 20, &[]);
    sparse(&at.join("data at the end"), 8 << 20, &[((8 << 20) - 1, 1)]);
    sh(&format!(
        "cd '{}'; mkfifo pipe; setfattr -n user.colour -v 'blue=%41' one; setfattr -n user.empty a; \
         setfacl -m u:1234:rw- block; setfacl -d -m g:4321:r-x a/deep; chmod 4755 empty; chmod 000 block; chmod 1777 a; \
         touch -h -d '1969-12-31 23:59:58.25 UTC' 'a/line\nbreak'; touch -h -d '2400-01-01 00:00:00.000000001 UTC' one; \
         touch -h -d '2001-02-03 04:05:06.789 UTC' link pipe a/deep a",
        at.display()
    ));
    if is_root() {
        sh(&format!(
            "cd '{}'; chown -h 12345:3000000000 link empty; chmod 4755 empty; mknod null c 1 3; mknod disk b 7 300; \
             setfattr -n trusted.t -v x one; setfattr -h -n trusted.l -v y link; \
             chown 65534:0 a/deep/er; touch -h -d '2001-02-03 04:05:06.789 UTC' a/deep",
            at.display()
        ));
    }
}

fn sparse(path: &Path, size: u64, pieces: &[(u64, usize)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, length) in pieces {
        file.write_all_at(&vec![b'd'; *length], *offset).unwrap();
    }
}

/// Runs a line of shell and returns what it printed; it must succeed.
pub(crate) fn sh(line: &str) -> String {
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What rsync would have to change to make `copy` equal to `original`: nothing. Folders end in `/`.
pub(crate) fn assert_equal(original: &Path, copy: &Path) {
    let changes = sh(&format!(
        "LC_ALL=C.UTF-8 rsync -aHAXni --checksum --delete '{}/' '{}/'",
        original.display(),
        copy.display()
    ));
    assert_eq!(changes, "", "{}", copy.display());
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
