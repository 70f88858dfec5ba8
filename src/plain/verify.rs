//! Reading a backup again from end to end, as a restore would, without writing anything.
use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt as _, path::PathBuf, sync::Arc};

use anyhow::{Context, ensure};

use super::{
    decode::{Reading, compare, decode, small},
    manifest::{Manifest, Source, SourceKind},
    untar::{Member, Reader},
};
use crate::{bucket::Bucket, tree::cancelled_error};

/// What was found whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Objects read.
    pub objects: usize,
    /// Bytes read, as stored.
    pub stored: u64,
    /// Bytes after decryption and decompression.
    pub plain: u64,
    /// Sources whose object is what was stored, but which no key was given for: their contents were not looked at.
    pub sealed: Vec<String>,
}

/// Reads all of a backup again: sizes and hashes as stored; then, unless it is encrypted and no key is given, decrypts,
/// decompresses, hashes again and looks through archives to the last entry.
///
/// # Errors
/// What is wrong, and with which object.
pub async fn verify(bucket: &Arc<dyn Bucket>, manifest: &Manifest, reading: &Reading) -> anyhow::Result<Verified> {
    let what = || format!("verify {}/{}", manifest.job, manifest.id);
    let mut verified = Verified::default();
    let key = manifest.key();
    let json = small(bucket, &key).await.with_context(|| format!("read {key}")).with_context(what)?;
    let found = Manifest::read(&manifest.job, &manifest.id, &json).with_context(|| key.clone()).with_context(what)?;
    ensure!(found == *manifest, "{}: {key} was changed meanwhile", what());
    for source in &manifest.sources {
        if source.encrypted && reading.identities.is_empty() {
            compare(bucket, &source.key, &source.stored, reading).await.with_context(what)?;
            verified.sealed.push(source.name.clone());
        } else {
            look_through(bucket, source, reading).await.with_context(what)?;
            verified.plain += source.plain.bytes;
        }
        verified.objects += 1;
        verified.stored += source.stored.bytes;
    }
    Ok(verified)
}

/// Something in a source's archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is in the archive.
    pub path: PathBuf,
    /// What it is.
    pub kind: tar::EntryType,
    /// Bytes of a file.
    pub size: u64,
    /// Its rights, as Unix counts them.
    pub mode: u32,
    /// Its owner's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// When it changed: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Where a symbolic link points.
    pub target: Vec<u8>,
}

/// Tells `each` what a source's archive holds, in its order, until it wants no more. All of the object is read for that.
///
/// # Errors
/// When it cannot be read, or is damaged: what was told before is not to be believed then.
pub async fn entries(
    bucket: &Arc<dyn Bucket>,
    source: &Source,
    reading: &Reading,
    mut each: impl FnMut(Entry) -> bool + Send + 'static,
) -> anyhow::Result<()> {
    let telling = move |from: &mut dyn io::Read| {
        let mut archive = Reader::new(from);
        while let Some(member) = archive.next()? {
            let path = member.parts.iter().map(|part| OsStr::from_bytes(part)).collect();
            let Member { kind, size, mode, uid, gid, mtime, target, .. } = member;
            if !each(Entry { path, kind, size, mode, uid, gid, mtime, target }) {
                anyhow::bail!(cancelled_error());
            }
        }
        Ok(())
    };
    decode(bucket, source, reading, telling).await
}

async fn look_through(bucket: &Arc<dyn Bucket>, source: &Source, reading: &Reading) -> anyhow::Result<()> {
    let (kind, wanted) = (source.kind, source.entries);
    let entries = decode(bucket, source, reading, move |from| {
        if kind != SourceKind::Tree {
            io::copy(from, &mut io::sink())?;
            return Ok(wanted);
        }
        let mut archive = Reader::new(from);
        let mut entries = 0;
        while archive.next()?.is_some() {
            entries += 1;
        }
        Ok(entries)
    })
    .await?;
    ensure!(entries == wanted, "{}: it has {entries} entries instead of {wanted}", source.key);
    Ok(())
}
