//! What a file is beside its bytes: extended attributes (POSIX ACLs are among them), owners' names, and where it has holes.
use std::{collections::HashMap, ffi::OsStr, fs::File, io, os::fd::AsRawFd, path::PathBuf};

use rustix::{fd::AsFd, fs::SeekFrom, io::Errno};

/// The name and value of an extended attribute.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// Those of a file.
pub(crate) type Xattrs = Vec<Xattr>;

/// Those of an open file or folder.
pub(crate) fn of_open(fd: impl AsFd) -> io::Result<Xattrs> {
    let fd = fd.as_fd();
    gather(|to| rustix::fs::flistxattr(fd, to), |name, to| rustix::fs::fgetxattr(fd, name, to))
}

/// Those of something that is not opened: a symlink itself, a device, a pipe.
pub(crate) fn of_entry(parent: impl AsFd, name: &OsStr) -> io::Result<Xattrs> {
    // There is no `at` form of these calls; the kernel's own name for the open folder is as safe.
    let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_fd().as_raw_fd())).join(name);
    gather(|to| rustix::fs::llistxattr(&path, to), |name, to| rustix::fs::lgetxattr(&path, name, to))
}

fn gather(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Xattrs> {
    let names = match whole(&list) {
        // The file system has none, or there is no /proc.
        Err(Errno::OPNOTSUPP | Errno::NOENT) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match whole(&|to: &mut [u8]| get(name, to)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Gone meanwhile, or made up by the file system and not to be read.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}

/// A value of unknown length.
fn whole(call: &dyn Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    // The kernel's own limit is 64 KiB; some file systems go beyond.
    const MOST: usize = 16 << 20;
    let mut value = vec![0; 1024];
    loop {
        match call(&mut value) {
            Err(Errno::RANGE) if value.len() < MOST => value.resize(value.len() * 8, 0),
            Err(error) => return Err(error),
            Ok(length) => {
                value.truncate(length);
                return Ok(value);
            }
        }
    }
}

/// Where a file with holes has data, as offsets and lengths; `None` when it has none, or the file system cannot tell.
pub(crate) fn data_pieces(file: &File, size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let begin = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(begin) => begin.min(size),
            // No data behind this place.
            Err(Errno::NXIO) => size,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if begin >= size {
            break;
        }
        let end = match rustix::fs::seek(file, SeekFrom::Hole(begin)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => size,
            Err(error) => return Err(error.into()),
        };
        if end <= begin {
            break;
        }
        pieces.push((begin, end - begin));
        at = end;
    }
    if pieces == [(0, size)] {
        return Ok(None);
    }
    if pieces.last().is_none_or(|(begin, length)| begin + length < size) {
        // GNU tar's mark of a file that ends in a hole.
        pieces.push((size, 0));
    }
    Ok(Some(pieces))
}

/// Names of owners, from /etc/passwd and /etc/group.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Owners {
    pub(crate) fn of_this_host() -> Self {
        Self { users: read("/etc/passwd"), groups: read("/etc/group") }
    }

    pub(crate) fn user(&self, uid: u32) -> Option<&str> {
        self.users.get(&uid).map(String::as_str)
    }

    pub(crate) fn group(&self, gid: u32) -> Option<&str> {
        self.groups.get(&gid).map(String::as_str)
    }
}

fn read(path: &str) -> HashMap<u32, String> {
    // Without the file, owners have numbers only.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(id)) = (fields.next(), fields.nth(1).and_then(|id| id.parse().ok())) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}
