//! The suite of promises, run against each bucket.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rusuban::{
    bucket::{folder::Folder, limited::Limited, memory::Memory, retrying::Retrying},
    clock::Clock,
};

use super::promises::{self, World, for_each_promise};
use crate::support::{
    faulty::{Fault, Faulty},
    garage,
};

/// One test for each promise.
macro_rules! suite {
    ($($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::promises::$promise(world().await.0).await;
            }
        )*
    };
}

mod memory {
    use super::*;

    async fn world() -> (World, ()) {
        (World { bucket: Arc::new(Memory::new(Clock::system())), conditional: true, steady: true }, ())
    }

    for_each_promise!(suite);
}

mod folder {
    use super::*;

    async fn world() -> (World, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (World { bucket: Arc::new(Folder::new(folder.path().join("bucket"))), conditional: true, steady: true }, folder)
    }

    for_each_promise!(suite);
}

mod garage_server {
    use super::*;

    async fn world() -> (World, ()) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("suite {}/of this house", COUNT.fetch_add(1, Ordering::SeqCst));
        // Garage takes a conditional put for any other.
        (World { bucket: Arc::new(garage::bucket(&prefix).await), conditional: false, steady: true }, ())
    }

    for_each_promise!(suite);
}

/// Every third operation fails in one way or another, and nobody notices.
mod bad_days {
    use super::*;

    async fn world() -> (World, ()) {
        let faulty = Faulty::new(Arc::new(Memory::new(Clock::system())), |n| {
            let faults = [Fault::Before, Fault::After, Fault::Short, Fault::Hang];
            (n % 3 == 1).then(|| faults[n / 3 % faults.len()])
        });
        let limited = Limited::new(Arc::new(faulty.only_whole_operations()), Duration::from_millis(50), None, None);
        let bucket = Retrying::new(Arc::new(limited), garage::patience(12));
        (World { bucket: Arc::new(bucket), conditional: false, steady: false }, ())
    }

    for_each_promise!(suite);
}
