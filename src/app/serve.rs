//! The server: runs jobs on time until it is asked to stop, and reads the files again when they change.
use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{App, Refusal, asked, control::Socket};
use crate::{store::Histories, web::Web};

/// How often the files are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(2);
/// How often history is trimmed.
const TIDY: Duration = Duration::from_secs(3600);

/// Runs until SIGTERM or SIGINT. Then no new run starts, those that go on get their grace period, and all is in the ledger.
/// A second signal ends the grace.
///
/// # Errors
/// When the socket cannot be opened or the ledger cannot be written at the start.
pub async fn serve(app: Arc<App>) -> anyhow::Result<()> {
    let config = app.config();
    let socket = Socket::open(&config.settings.data)?;
    let changes = app.scheduler().reload(config.jobs.values().cloned().collect()).await?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let stop = CancellationToken::new();
    let door = match config.settings.listen {
        Some(listen) => Some(Web::open(listen).await?),
        None => None,
    };
    if let Some(door) = door {
        tracing::info!(address = ?door.address(), "heartbeats may call");
        tokio::spawn(door.serve(Arc::clone(&app), stop.clone()));
    }
    let scheduler = Arc::clone(app.scheduler());
    let (delivering, delivered) = (CancellationToken::new(), Arc::clone(&app.delivery));
    let delivery = tokio::spawn(delivered.run(delivering.clone()));
    let tasks = [
        tokio::spawn({
            let stop = stop.clone();
            async move { scheduler.run(stop).await }
        }),
        tokio::spawn(socket.serve(Arc::clone(&app), stop.clone())),
        tokio::spawn(tidy(Arc::clone(&app), stop.clone())),
        tokio::spawn(Arc::clone(&app.runner).keep_paying(stop.clone())),
        tokio::spawn(Arc::clone(&app).overlook(stop.clone())),
        tokio::spawn(Arc::clone(&app).stay_alive(stop.clone())),
        tokio::spawn(app.follower().run(stop.clone())),
    ];
    tracing::info!(home = %config.home.path().display(), jobs = changes.added.len(), "ready");

    let mut seen = config.home.fingerprint();
    let mut trouble = None;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                // Read once, not again when the files are looked at.
                seen = config.home.fingerprint();
                reload(&app, "asked by SIGHUP").await;
            }
            () = app.clock().sleep(LOOK_AT_FILES) => {
                let now = config.home.fingerprint();
                if now != seen {
                    seen = now;
                    reload(&app, "the files have changed").await;
                }
                let ledger = app.store().trouble();
                match (&ledger, &trouble) {
                    (Some(why), None) => {
                        tracing::error!("{why}");
                        let (delivery, why) = (Arc::clone(&app.delivery), why.clone());
                        tokio::spawn(async move { delivery.cry(&why).await });
                    }
                    (None, Some(_)) => {
                        if let Err(error) = app.delivery.calm().await {
                            tracing::error!("tell that the ledger can be written again: {error:#}");
                        }
                    }
                    _ => {}
                }
                trouble = ledger;
            }
        }
    }
    tracing::info!("stopping: no new runs; those that go on are asked to stop");
    stop.cancel();
    for task in tasks {
        let _ = task.await;
    }
    delivering.cancel();
    tokio::select! {
        () = app.shut_down() => tracing::info!("all is in the ledger"),
        _ = terminate.recv() => tracing::warn!("asked twice: ending at once; runs that go on will be `interrupted`"),
        _ = interrupt.recv() => tracing::warn!("asked twice: ending at once; runs that go on will be `interrupted`"),
    }
    let _ = delivery.await;
    Ok(())
}

async fn reload(app: &App, why: &str) {
    match app.reload().await {
        Ok(changes) => tracing::info!("{why}: {changes}"),
        Err(Refusal::Other(error)) => tracing::error!("{why}: {error:#}"),
        Err(Refusal::Missing(what)) => tracing::error!("{why}: {what}"),
    }
}

async fn tidy(app: Arc<App>, stop: CancellationToken) {
    loop {
        let histories: Histories = app
            .config()
            .jobs
            .values()
            .map(|job| (job.name.clone(), job.policies.history))
            .chain(asked::histories())
            .collect();
        if let Err(error) = app.store().tidy_outbox().await {
            tracing::warn!("remove what was told long ago: {error:#}");
        }
        match app.store().tidy(&histories).await {
            Ok(0) => {}
            Ok(gone) => tracing::info!(runs = gone, "old history removed"),
            Err(error) => tracing::warn!("remove old history: {error:#}"),
        }
        if let Err(error) = app.store().tidy_checks().await {
            tracing::warn!("sum up the history of checks: {error:#}");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.clock().sleep(TIDY) => {}
        }
    }
}
