//! Small disks, to be filled.
use std::{fs, path::Path, process::Command};

/// A small disk of its own, unmounted at the end.
pub(crate) struct Disk(tempfile::TempDir);

impl Disk {
    pub(crate) fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "this test mounts a small disk, which needs root");
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Until nothing more fits.
    pub(crate) fn fill(&self) {
        // It fails when there is no more room: that is what it is for.
        let _ = fs::write(self.path().join("filler"), vec![1; 32 << 20]);
    }

    pub(crate) fn empty(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
