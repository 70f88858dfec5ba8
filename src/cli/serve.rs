//! `rusuban serve`.
use std::time::Duration;

use super::{Context, Exit};
use crate::app::{self, App, Opened};

/// Serves until it is asked to stop.
pub(super) async fn serve(context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let Some(config) = context.load()? else { return Ok(Exit::Configuration) };
    let mut told = false;
    loop {
        match App::open(config.home.clone(), config.clone(), context.clock.clone(), "serve").await? {
            Opened::Ours(app) => {
                app::serve::serve(app).await?;
                return Ok(Exit::Fine);
            }
            Opened::Taken(holder) if holder.contains("rusuban serve") => {
                writeln!(context.errors, "a server runs on this home already: {holder}")?;
                return Ok(Exit::Failed);
            }
            Opened::Taken(holder) => {
                if !told {
                    writeln!(context.errors, "waiting for {holder}, which runs on this home")?;
                    told = true;
                }
                context.clock.sleep(Duration::from_millis(500)).await;
            }
        }
    }
}
