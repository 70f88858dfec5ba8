//! A folder whose content takes the place of all else in the folder that holds it, where that one is a mount and cannot be renamed.
use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Context as _;

use super::{Dress, attributes};

/// Moves all that is in `inner` into the folder that holds it, from which all else is removed, and gives that folder the owner, rights,
/// attributes and times of `inner`. Returns how many entries it has then, itself among them. What is moved keeps its times.
///
/// # Errors
/// When something cannot be moved; what is not moved yet is still in `inner`.
pub fn unfold(inner: &Path) -> anyhow::Result<u64> {
    let outer = inner.parent().context("it is in no folder")?;
    let what = |path: &Path| format!("put {} in its place", path.display());
    for entry in fs::read_dir(outer).with_context(|| format!("look into {}", outer.display()))? {
        let path = entry?.path();
        if path != inner {
            remove(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    let dress = dress_of(inner).with_context(|| what(inner))?;
    for entry in fs::read_dir(inner).with_context(|| what(inner))? {
        let entry = entry?;
        let path = entry.path();
        fs::rename(&path, outer.join(entry.file_name())).with_context(|| what(&path))?;
    }
    fs::remove_dir(inner).with_context(|| format!("remove {}", inner.display()))?;
    let folder = fs::File::open(outer).with_context(|| what(outer))?;
    dress.open(&folder, &mut |_| {}).with_context(|| what(outer))?;
    rustix::fs::syncfs(&folder).context("write all to the disk")?;
    count(outer)
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn dress_of(folder: &Path) -> anyhow::Result<Dress> {
    let found = folder.metadata()?;
    Ok(Dress {
        uid: found.uid(),
        gid: found.gid(),
        mode: found.mode() & 0o7777,
        mtime: (found.mtime(), u32::try_from(found.mtime_nsec()).unwrap_or(0)),
        xattrs: attributes::of_open(fs::File::open(folder)?)?,
    })
}

fn count(folder: &Path) -> anyhow::Result<u64> {
    let (mut entries, mut left) = (1, vec![folder.to_owned()]);
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("look into {}", folder.display()))? {
            let entry = entry?;
            entries += 1;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(entries)
}
