//! A container that reads volumes for us where we cannot: this program, with them read-only and nothing else.
use std::path::PathBuf;

use anyhow::Context as _;

use crate::{
    docker::{self, Engine, Helping, Once, VolumeMount},
    kinds::Cx,
    model::{Debt, DebtId},
    tree::Far,
};

/// Where it keeps copies of databases.
const SPOOL: &str = "/spool";

/// A helper at work. Whoever hired it dismisses it.
pub(super) struct Helper {
    engine: Engine,
    name: String,
    mark: String,
    debt: DebtId,
}

/// What is read, and under which path people know it.
#[derive(Clone)]
pub(super) struct Place {
    /// A volume's name, or a path on the engine's host.
    pub(super) source: String,
    /// Where it is on the engine's host.
    pub(super) known: PathBuf,
}

/// Hires one. `live`: databases in it are in use, and are copied as such.
///
/// # Errors
/// When there is no image for it, or it does not answer.
pub(super) async fn hire(cx: &Cx, engine: &Engine, places: &[Place], live: bool) -> anyhow::Result<(Helper, Far)> {
    let program = engine.helper().await?;
    let mark = docker::mark()?;
    let name = format!("rusuban-{}-{}-{}", cx.job, cx.run, &mark[..mark.len().min(8)]);
    let inside = |number: usize| format!("/rusuban/{number:04}");
    let mounts = places.iter().enumerate().map(|(number, place)| VolumeMount {
        source: place.source.clone(),
        target: inside(number),
        read_only: true,
    });
    let once = Once {
        name: name.clone(),
        mark: mark.clone(),
        image: program.image.clone(),
        entrypoint: Some(vec![program.path.clone()]),
        arguments: Some(vec!["volume-helper".into(), "read".into(), SPOOL.into()]),
        folder: Some("/".to_owned()),
        volumes: mounts.collect(),
        labels: vec![("rusuban.job".to_owned(), cx.job.to_string()), ("rusuban.run".to_owned(), cx.run.to_string())],
        helper: Some(Helping {
            // To read what others own, and no more.
            capabilities: vec!["DAC_READ_SEARCH"],
            spool: live.then(|| SPOOL.to_owned()),
        }),
        ..Once::default()
    };
    let debt = cx.record.owe(Debt::Container { name: name.clone(), mark: mark.clone() }).await?;
    let helper = Helper { engine: engine.clone(), name, mark, debt };
    let known = places.iter().enumerate().map(|(number, place)| (place.known.clone(), inside(number).into())).collect();
    let meeting = async {
        let mut working = engine.create_once(&once).await?;
        let input = working.take_input().context("it has no input")?;
        working.start().await?;
        let met = Far::meet(working.output(), input, known, cx.cancelled.clone()).await;
        met.with_context(|| format!("the image {}", program.image))
    };
    match meeting.await {
        Ok(far) => Ok((helper, far)),
        Err(error) => {
            helper.dismiss(cx).await;
            Err(error)
        }
    }
}

impl Helper {
    /// Removes it. What cannot be removed is still owed.
    pub(super) async fn dismiss(self, cx: &Cx) {
        let removed = self.engine.remove_once(&self.name, &self.mark).await;
        let settled = match removed.with_context(|| format!("remove the container {}", self.name)) {
            Ok(()) => cx.record.paid(self.debt).await,
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            cx.warn(format!("{error:#}; it is tried again"));
        }
    }
}
