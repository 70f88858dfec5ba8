//! A large object on its way to an S3 server, in parts.
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use aws_sdk_s3::{
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::{
    super::{Bucket as _, BucketError, PART, Put, Result, Upload},
    S3,
};

/// Parts on their way at once; with the one that is being filled, what an upload holds in memory.
const PARTS_AT_ONCE: usize = 3;
/// S3's limit.
const MOST_PARTS: i32 = 10_000;

/// How large part number `number` is: nobody says in advance how large an object will be, so parts grow when there have been
/// many. The first 5,000 are of one size (78 GiB), because some servers insist on that.
fn part_size(number: i32) -> usize {
    match number {
        ..=5_000 => PART,
        5_001..=7_500 => 4 * PART,
        _ => 16 * PART,
    }
}

pub(super) struct S3Upload {
    bucket: S3,
    key: String,
    id: String,
    /// Bytes so far.
    bytes: u64,
    /// Bytes for a part that is not full yet.
    gathered: BytesMut,
    begun: i32,
    on_their_way: JoinSet<Result<(i32, CompletedPart)>>,
    arrived: BTreeMap<i32, CompletedPart>,
}

impl S3Upload {
    pub(super) fn new(bucket: S3, key: &str, id: String) -> Self {
        let (bytes, gathered, begun) = (0, BytesMut::new(), 0);
        let (on_their_way, arrived) = (JoinSet::new(), BTreeMap::new());
        Self { bucket, key: key.to_owned(), id, bytes, gathered, begun, on_their_way, arrived }
    }

    async fn wait_for_one(&mut self) -> Result<()> {
        if let Some(part) = self.on_their_way.join_next().await {
            let (number, part) = part.map_err(|error| BucketError::Other(error.to_string()))??;
            self.arrived.insert(number, part);
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes) -> Result<()> {
        if self.begun == MOST_PARTS {
            let most: u64 = (1..=MOST_PARTS).map(|number| part_size(number) as u64).sum();
            return Err(BucketError::Other(format!(
                "{}: larger than {}, the most that {MOST_PARTS} parts can hold",
                self.key,
                crate::text::size(most)
            )));
        }
        let at_once = (PARTS_AT_ONCE * PART / part_size(self.begun + 1)).max(1);
        while self.on_their_way.len() >= at_once {
            self.wait_for_one().await?;
        }
        self.begun += 1;
        let (bucket, key, id, number) = (self.bucket.clone(), self.key.clone(), self.id.clone(), self.begun);
        self.on_their_way.spawn(async move {
            let request = |md5| {
                let request = bucket.client.upload_part().bucket(&bucket.bucket).key(bucket.key(&key)).upload_id(&id);
                let request = request.part_number(number).set_content_md5(md5);
                request.body(ByteStream::from(part.clone())).send()
            };
            let sent = bucket.patience.again(|| bucket.send(&key, &part, request)).await?;
            Ok((number, CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build()))
        });
        Ok(())
    }
}

#[async_trait]
impl Upload for S3Upload {
    fn id(&self) -> String {
        self.id.clone()
    }

    async fn part(&mut self, mut part: Bytes) -> Result<()> {
        self.bytes += part.len() as u64;
        while !part.is_empty() {
            let wanted = part_size(self.begun + 1);
            if self.gathered.is_empty() && part.len() >= wanted {
                self.send(part.split_to(wanted)).await?;
                continue;
            }
            // What comes second will be followed by more, most likely; a small object takes its own size.
            if !self.gathered.is_empty() {
                self.gathered.reserve(wanted - self.gathered.len());
            }
            self.gathered.extend_from_slice(&part.split_to(part.len().min(wanted - self.gathered.len())));
            if self.gathered.len() == wanted {
                let whole = self.gathered.split().freeze();
                self.send(whole).await?;
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        if self.bytes == 0 {
            // An upload without parts cannot be ended, and Garage refuses an empty part.
            let (bucket, key) = (&self.bucket, &self.key);
            bucket.patience.again(|| bucket.put(key, Bytes::new(), Put::Replace)).await?;
            return bucket.patience.again(|| bucket.abort_upload(key, &self.id)).await;
        }
        if !self.gathered.is_empty() {
            let last = self.gathered.split().freeze();
            self.send(last).await?;
        }
        while !self.on_their_way.is_empty() {
            self.wait_for_one().await?;
        }
        if self.arrived.len() != usize::try_from(self.begun).unwrap_or_default() {
            return Err(BucketError::Other(format!("{}: an earlier part could not be sent", self.key)));
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.arrived.into_values().collect())).build();
        let (bucket, tries) = (&self.bucket, AtomicU32::new(0));
        let complete = || async {
            tries.fetch_add(1, Ordering::Relaxed);
            let request = bucket.client.complete_multipart_upload().bucket(&bucket.bucket).key(bucket.key(&self.key));
            let request = request.upload_id(&self.id).multipart_upload(parts.clone());
            // A server may put the parts together before it answers.
            bucket.ask_within(bucket.silence * 4, &self.key, request.send()).await
        };
        match bucket.patience.again(complete).await {
            Ok(_) => Ok(()),
            // The answer to an earlier try was lost: then the upload is gone, and the object is there. Whoever put it reads it
            // back.
            Err(BucketError::NotFound(text)) if tries.load(Ordering::Relaxed) > 1 => match bucket.head(&self.key).await
            {
                Ok(object) if object.size == self.bytes => Ok(()),
                Ok(_) => Err(BucketError::NotFound(text)),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.on_their_way.shutdown().await;
        self.bucket.abort_upload(&self.key, &self.id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_so_that_a_large_disk_fits_into_one_object() {
        let most: u64 = (1..=MOST_PARTS).map(|number| part_size(number) as u64).sum();
        assert!(most > 800 << 30, "{most}");
        assert!(part_size(MOST_PARTS) as u64 <= 5 << 30, "S3's largest part");
        assert!((1..MOST_PARTS).all(|number| part_size(number) <= part_size(number + 1)));
    }
}
