//! What a container is made of that does something for us beside what only the engine sees: this very program.
use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use reqwest::{Body, Method};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::{fs::File, io::AsyncReadExt as _};

use super::{
    access::{self, Access},
    client::{Engine, EngineError},
    own,
};
use crate::http;

/// The name of images that are made of this program.
const NAME: &str = "rusuban-helper";
/// The label that they have.
const LABEL: &str = "rusuban.helper";
/// Where the program is in them.
const PLACE: &str = "rusuban";
/// So much is read at once.
const PIECE: usize = 256 << 10;

/// This program, as a container can run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The image that it is in.
    pub image: String,
    /// Its path there, or its name.
    pub path: String,
}

impl Program {
    /// What a container of it needs of the engine.
    #[must_use]
    pub fn needs() -> Vec<Access> {
        const IMAGE: &str = "where no image is named: find or make one of this program";
        vec![
            access::CREATE,
            access::ATTACH,
            access::START,
            access::CONTAINER,
            access::REMOVE,
            access::WAIT.rarely("know why the container ended too early"),
            access::IMAGE.rarely(IMAGE),
            access::IMPORT.rarely(IMAGE),
            access::IMAGES.rarely("find images of earlier versions of this program"),
            access::REMOVE_IMAGE.rarely("remove them"),
        ]
    }
}

impl Engine {
    /// An image with this program in it: the one that the settings name, else the one that we run in, else one that is made of it.
    ///
    /// # Errors
    /// When there is none; it says what to do.
    pub async fn helper(&self) -> anyhow::Result<Program> {
        if let Some(image) = self.docker().helper() {
            return Ok(Program { image: image.to_owned(), path: PLACE.to_owned() });
        }
        let program = std::env::current_exe().context("find this program")?;
        if own::own_id().is_some()
            && let Some(own) = self.own_container().await?
        {
            return Ok(Program { image: own.image_id().to_owned(), path: program.display().to_string() });
        }
        let looked = program.clone();
        let digest =
            tokio::task::spawn_blocking(move || digest_if_static(&looked)).await.context("a thread died")??;
        let Some(digest) = digest else {
            bail!(
                "no container can be made of {}, for it needs libraries of this machine: use the program that is linked statically, or name an \
                 image that has `rusuban` in it, `helper = \"IMAGE\"` under [docker] in rusuban.toml",
                program.display()
            )
        };
        self.import(&program, &digest[..16]).await
    }

    /// Makes an image of nothing but a program, unless it is there.
    ///
    /// # Errors
    /// When it cannot be read, or the engine refuses it.
    pub async fn import(&self, program: &Path, tag: &str) -> anyhow::Result<Program> {
        let image = format!("{NAME}:{tag}");
        let made = Program { image: image.clone(), path: format!("/{PLACE}") };
        match self.image(&image).await {
            Ok(_) => return Ok(made),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        let what = || format!("make the image {image} of {}", program.display());
        let body = Body::wrap_stream(tar(program.to_owned()).await.with_context(what)?);
        let label = format!("LABEL {LABEL}={tag}");
        let query = [("fromSrc", "-"), ("repo", NAME), ("tag", tag), ("changes", &label)];
        let response = self.open(Method::POST, "/images/create", &query, Some((body, "application/x-tar"))).await;
        // The head says 200 before the tar was looked at.
        let said = response.with_context(what)?.text().await;
        let said = said.map_err(|error| EngineError::Broken(http::why(error))).with_context(what)?;
        let error = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["error"].as_str()?.to_owned());
        if let Some(error) = said.lines().find_map(error) {
            return Err(anyhow::anyhow!("{error}")).with_context(what);
        }
        let new = self.image(&image).await.with_context(what)?;
        // Those of earlier versions; one that is at work stays.
        for old in self.images_labelled(LABEL).await.unwrap_or_default() {
            if old != new.id() {
                let _ = self.remove_image(&old).await;
            }
        }
        Ok(made)
    }
}

/// A name for what is in a program, if it needs no libraries.
fn digest_if_static(program: &Path) -> anyhow::Result<Option<String>> {
    let what = || format!("read {}", program.display());
    let mut file = std::fs::File::open(program).with_context(what)?;
    let (mut hash, mut room, mut head) = (Sha256::new(), vec![0; PIECE], Vec::new());
    loop {
        let count = file.read(&mut room).with_context(what)?;
        if count == 0 {
            break;
        }
        if head.is_empty() {
            head.extend_from_slice(&room[..count]);
        }
        hash.update(&room[..count]);
    }
    let hex = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((is_static(&head) == Some(true)).then_some(hex))
}

/// Whether a program asks for no other to load it, as its head says; none when it is no program of a kind that we know.
fn is_static(head: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    // ELF, 64 bits, the lowest byte first.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, size: usize| {
        let bytes = head.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let begin = usize::try_from(number(0x20, 8)?).ok()?;
    let (size, count) = (usize::try_from(number(0x36, 2)?).ok()?, usize::try_from(number(0x38, 2)?).ok()?);
    for index in 0..count {
        if number(begin + index * size, 4)? == u64::from(INTERPRETER) {
            return Some(false);
        }
    }
    Some(true)
}

async fn tar(program: PathBuf) -> anyhow::Result<impl Stream<Item = std::io::Result<Bytes>> + Send + 'static> {
    let file = File::open(&program).await?;
    let size = file.metadata().await?.len();
    let mut header = tar::Header::new_ustar();
    header.set_path(PLACE)?;
    header.set_size(size);
    header.set_mode(0o755);
    header.set_cksum();
    // Replaced meanwhile, it would not be as long as the head says.
    let bytes = stream::try_unfold((file, size), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut room = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        let count = file.read(&mut room).await?;
        if count == 0 {
            return Err(std::io::Error::other("the program was changed while it was read"));
        }
        room.truncate(count);
        Ok(Some((Bytes::from(room), (file, left - count as u64))))
    });
    let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or(0);
    let head = Bytes::copy_from_slice(header.as_bytes());
    let end = Bytes::from(vec![0; padding + 1024]);
    Ok(stream::iter([Ok(head)]).chain(bytes).chain(stream::iter([Ok(end)])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_libraries_is_told_from_one_that_does_not() {
        let head = |path: &str| {
            let mut bytes = Vec::new();
            std::fs::File::open(path).unwrap().take(64 << 10).read_to_end(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(is_static(&head("/bin/sh")), Some(false));
        let own = std::env::current_exe().unwrap();
        assert_eq!(digest_if_static(&own).unwrap().is_some(), cfg!(target_feature = "crt-static"));
        assert_eq!(is_static(b"#!/bin/sh"), None);
        assert_eq!(is_static(b"\x7fELF\x02\x01"), None);
        // One that has no parts at all.
        let mut none = b"\x7fELF\x02\x01".to_vec();
        none.resize(64, 0);
        assert_eq!(is_static(&none), Some(true));
    }
}
