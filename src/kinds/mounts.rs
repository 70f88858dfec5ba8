//! Which filesystems there are, and how much room is on each.
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::StatVfsMountFlags;

/// A network filesystem whose server is gone answers after this long or, as far as we are concerned, never.
const PATIENCE: Duration = Duration::from_secs(10);

/// Full by nature, made of other filesystems, or not a place to keep things.
const NOT_REPORTED: [&str; 12] = [
    "autofs",
    "cramfs",
    "devtmpfs",
    "erofs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fuse.snapfuse",
    "iso9660",
    "ramfs",
    "squashfs",
    "tmpfs",
];
/// Those without a device of their own that keep things nevertheless; and all of FUSE.
const WITHOUT_DEVICE: [&str; 14] = [
    "9p",
    "afs",
    "bcachefs",
    "btrfs",
    "ceph",
    "cifs",
    "fuse",
    "glusterfs",
    "nfs",
    "nfs4",
    "smb3",
    "virtiofs",
    "vboxsf",
    "zfs",
];
/// What a container's engine mounts into it one by one, from the host's disk.
const OF_THE_ENGINE: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// The room on a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Tells it from another filesystem that is mounted at the same place later.
    pub(super) id: u64,
    pub(super) size: u64,
    pub(super) used: u64,
    /// What a user who is not root may still write.
    pub(super) free: u64,
    /// Used and in all; none where they are made as needed.
    pub(super) inodes: Option<(u64, u64)>,
    pub(super) read_only: bool,
}

impl Room {
    /// The share that is used, in percent, as `df` counts it: of what users may have.
    pub(super) fn share(&self) -> f64 {
        percent(self.used, self.used.saturating_add(self.free))
    }

    /// The share of inodes that is used, in percent.
    pub(super) fn inode_share(&self) -> Option<f64> {
        self.inodes.map(|(used, all)| percent(used, all))
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

/// The mount points of the filesystems that keep things, each filesystem once; from the text of `/proc/self/mountinfo`.
pub(super) fn points(mountinfo: &str) -> Vec<PathBuf> {
    // What is mounted at one place later covers what was there.
    let mut mounts: BTreeMap<PathBuf, Mount<'_>> = BTreeMap::new();
    for mount in mountinfo.lines().filter_map(Mount::read) {
        mounts.insert(mount.point.clone(), mount);
    }
    let mut best: BTreeMap<&str, &Mount<'_>> = BTreeMap::new();
    for mount in mounts.values().filter(|mount| mount.is_reported()) {
        // Bind mounts show a part of what is mounted as a whole elsewhere.
        let rank = |mount: &Mount<'_>| (mount.root != "/", mount.point.as_os_str().len());
        let known = best.entry(mount.device).or_insert(mount);
        if rank(mount) < rank(known) {
            *known = mount;
        }
    }
    let mut points: Vec<PathBuf> = best.values().map(|mount| mount.point.clone()).collect();
    points.sort();
    points
}

struct Mount<'a> {
    device: &'a str,
    /// Which of its folders is mounted.
    root: &'a str,
    point: PathBuf,
    kind: &'a str,
}

impl<'a> Mount<'a> {
    /// One line: number, parent, device, root, point, options, more of them up to `-`, kind, source, options.
    fn read(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let (device, root, point) = (left.next()?, left.next()?, left.next()?);
        Some(Self { device, root, point: unescaped(point), kind: right.split(' ').next()? })
    }

    fn is_reported(&self) -> bool {
        if NOT_REPORTED.contains(&self.kind) {
            return false;
        }
        let of_the_engine = self.root != "/" && OF_THE_ENGINE.iter().any(|path| self.point == Path::new(path));
        let has_device = !self.device.starts_with("0:");
        let without = WITHOUT_DEVICE.contains(&self.kind) || self.kind.starts_with("fuse.");
        // In a container the root is an overlay on the host's disk.
        let is_root = self.kind == "overlay" && self.point == Path::new("/");
        !of_the_engine && (has_device || without || is_root)
    }
}

/// Spaces, tabs, line breaks and backslashes in a path are written as `\040` and so on.
fn unescaped(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let code = match rest {
            [b'\\', digits @ ..] => digits.get(..3).and_then(|digits| {
                std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok())
            }),
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &rest[4..] } else { tail };
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Looks at the filesystem that holds `path`.
///
/// # Errors
/// When there is no such path, it may not be looked at, or it does not answer.
pub(super) async fn room(path: &Path) -> io::Result<Room> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let place = path.to_owned();
    // A thread of its own: one that hangs in a dead network filesystem must keep neither others nor the end waiting.
    std::thread::Builder::new().name("statvfs".into()).spawn(move || {
        // Nobody waits any more: nothing is lost.
        let _ = tell.send(look(&place));
    })?;
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(room)) => room,
        Ok(Err(_)) => Err(io::Error::other("it could not be looked at")),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("it has not answered for {} s; is its server gone?", PATIENCE.as_secs()),
        )),
    }
}

fn look(path: &Path) -> io::Result<Room> {
    let found = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Room {
        id: found.f_fsid,
        size: bytes(found.f_blocks),
        used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
        free: bytes(found.f_bavail),
        inodes: (found.f_files > 0).then(|| (found.f_files.saturating_sub(found.f_ffree), found.f_files)),
        read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_filesystem_that_keeps_things_is_named_once() {
        let mountinfo = r"22 27 0:21 / /proc rw,relatime - proc proc rw
26 24 0:24 / /dev rw shared:2 - devtmpfs udev rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
28 27 254:0 /srv/web /var/www rw,relatime shared:1 - ext4 /dev/vda rw
29 27 254:1 / /mnt/old rw - xfs /dev/vdb rw
30 27 254:2 / /mnt/old rw - xfs /dev/vdc rw
31 27 0:40 / /mnt/big\040disk\134x rw - nfs4 nas:/big rw
32 27 0:41 / /home rw - btrfs /dev/vdd rw
33 27 0:41 /@snap /home/.snapshots rw - btrfs /dev/vdd rw
34 27 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro
35 27 0:50 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay rw
36 27 0:51 / /mnt/all rw - fuse.mergerfs a:b rw
37 27 0:52 / /run rw - tmpfs tmpfs rw
38 27 0:53 / /mnt/auto rw - autofs systemd-1 rw
a line that is not one";
        assert_eq!(
            points(mountinfo),
            ["/", "/home", "/mnt/all", "/mnt/big disk\\x", "/mnt/old"].map(PathBuf::from),
            "and of /mnt/old what was mounted last"
        );
    }

    #[test]
    fn in_a_container_its_root_and_what_is_mounted_into_it() {
        let mountinfo = "\
800 700 0:99 / / rw - overlay overlay rw,lowerdir=x
801 800 254:0 /var/lib/docker/containers/1/hosts /etc/hosts rw - ext4 /dev/vda rw
802 800 254:0 /srv/data /data rw - ext4 /dev/vda rw
803 800 0:100 / /dev/shm rw - tmpfs shm rw";
        assert_eq!(points(mountinfo), ["/", "/data"].map(PathBuf::from));
    }

    #[tokio::test]
    async fn the_room_is_what_df_tells() {
        let room = room(Path::new("/")).await.unwrap();
        let df =
            std::process::Command::new("df").args(["-B1", "--output=size,used,avail,pcent", "/"]).output().unwrap();
        let df = String::from_utf8(df.stdout).unwrap();
        let figures: Vec<&str> = df.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(figures[0].parse(), Ok(room.size));
        // Others write meanwhile.
        let used: u64 = figures[1].parse().unwrap();
        assert!(used.abs_diff(room.used) < 1 << 30, "{used} {}", room.used);
        let share: f64 = figures[3].trim_end_matches('%').parse().unwrap();
        assert!((room.share() - share).abs() <= 1.5, "{share} {}", room.share());
        assert!(room_of_nothing().await);
    }

    async fn room_of_nothing() -> bool {
        room(Path::new("/no/such/path")).await.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }
}
