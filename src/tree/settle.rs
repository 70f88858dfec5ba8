//! Whether the times of files can be relied upon.
use std::{fs::File, path::Path};

/// File systems on which a file may change, through mapped memory or from elsewhere, before its times do.
const LATE_TIMES: [u32; 8] = [
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x6969,      // NFS
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB
    0x00c3_6400, // Ceph
    0x0102_1997, // 9P
    0x6573_5546, // FUSE
];

/// Has the kernel write down what it holds of these places' file systems; see [`Tree::settle`](super::Tree::settle).
pub(crate) fn settle<'a>(mut places: impl Iterator<Item = &'a Path>) -> bool {
    places.all(|path| {
        // The type is told as a signed or an unsigned number, by the machine's kind.
        let is_late =
            |file: &File| rustix::fs::fstatfs(file).is_ok_and(|found| LATE_TIMES.contains(&(found.f_type as u32)));
        File::open(path).is_ok_and(|file| !is_late(&file) && rustix::fs::syncfs(&file).is_ok())
    })
}
