//! What was in a volume comes back into one that nothing runs on.
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{
    Part, afar,
    opened::{Filled, Opened},
};
use crate::{
    docker::{Engine, EngineError, Seat, Vessel, vessel},
    kinds::{Cx, Summary},
    model::Debt,
    text, tree,
};

/// Brings volumes back.
pub(super) async fn restore(
    cx: &Cx,
    engine: &Engine,
    opened: &Opened,
    parts: &[Part],
    replace: bool,
) -> anyhow::Result<Summary> {
    for part in parts {
        let Part { old, new, .. } = part;
        match cx.step(new, fill(cx, engine, opened, part, replace)).await {
            Ok(done) => cx.record.told(json!({
                "restored": old, "volume": new, "entries": done.entries, "bytes": done.bytes, "warnings": done.warnings,
            })),
            Err(error) => {
                cx.record.told(json!({ "failed": old, "volume": new, "error": format!("{error:#}") }));
                return Err(error);
            }
        }
    }
    Ok(format!("{} from the backup {}", text::count(parts.len(), "volume"), opened.id()))
}

/// Fills one. When it does not succeed, a volume that was made is removed again, and one that was there is as it was.
pub(super) async fn fill(
    cx: &Cx,
    engine: &Engine,
    opened: &Opened,
    part: &Part,
    replace: bool,
) -> anyhow::Result<Filled> {
    let Part { old, new, .. } = part;
    let what = || format!("restore {old} into the volume {new}");
    let debt = match engine.volume(new).await {
        Err(EngineError::NotFound(_)) => Some(cx.record.owe(Debt::Volume { name: new.clone() }).await?),
        _ => None,
    };
    let mut is_hidden = false;
    let filling = async {
        let vessel = engine.vessel(new, old).await?;
        match &vessel.seat {
            Seat::Here(folder) => write(cx, engine, opened, part, &vessel, folder, replace).await,
            Seat::Hidden(why) => {
                is_hidden = true;
                cx.info(format!("{why}; it is written by a container that is made for it"));
                let writing = afar::write(cx, engine, opened, part, &vessel, replace).await;
                writing.with_context(|| format!("{why}, and is written by a container"))
            }
        }
    };
    let done = filling.await.with_context(what);
    // What cannot be removed now stays owed.
    let settled = match (&done, debt) {
        // Nobody but us has written to it, and the container that could look into it may be what failed.
        (Err(_), Some(_)) if is_hidden => {
            matches!(engine.remove_volume(new).await, Ok(()) | Err(EngineError::NotFound(_)))
        }
        (Err(_), Some(_)) => engine.remove_unfilled(new).await.is_ok(),
        _ => true,
    };
    if let Some(debt) = debt.filter(|_| settled) {
        cx.record.paid(debt).await?;
    }
    let done = done?;
    cx.info(format!("restored {old} → the volume {new} ({} entries, {})", done.entries, text::size(done.bytes)));
    done.warnings.iter().for_each(|warning| cx.warn(warning));
    Ok(done)
}

async fn write(
    cx: &Cx,
    engine: &Engine,
    opened: &Opened,
    part: &Part,
    vessel: &Vessel,
    folder: &Path,
    replace: bool,
) -> anyhow::Result<Filled> {
    refuse_full(folder, &vessel.name, replace)?;
    let inner = folder.join(vessel::UNFINISHED);
    let done = match opened.read(cx, part, &inner).await {
        Ok(done) => done,
        Err(error) => {
            // What cannot be removed is removed by the next try.
            let folder = folder.to_owned();
            let _ = tokio::task::spawn_blocking(move || remove_unfinished(&folder)).await;
            return Err(error);
        }
    };
    engine.refuse_in_use(&vessel.name).await?;
    let there = tokio::task::spawn_blocking(move || tree::unfold(&inner)).await.context("a thread died")??;
    done.must_be(there)?;
    Ok(done)
}

/// What an earlier try left does not count.
///
/// # Errors
/// When there is something in it that is not to be replaced.
pub(super) fn refuse_full(folder: &Path, volume: &str, replace: bool) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("look into {}", folder.display()))? {
        if !vessel::is_unfinished(&entry?.file_name()) && !replace {
            bail!("there is a volume `{volume}` already, and it is not empty: choose another name, or say --replace");
        }
    }
    Ok(())
}

/// Removes what is not whole.
///
/// # Errors
/// When that cannot be done.
pub(super) fn remove_unfinished(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if vessel::is_unfinished(&entry.file_name()) {
            let path = entry.path();
            if entry.file_type()?.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
    }
    Ok(())
}
