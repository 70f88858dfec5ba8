//! `rusuban rollback`: a container goes back to a snapshot, or a copy of it is made for a look.
use std::io::{BufRead as _, IsTerminal as _};

use anyhow::Context as _;
use serde_json::json;

use super::{Context, Exit, Told, paint, run};
use crate::{
    app::control::Request,
    config::{Config, units::Span},
    docker::{Container, Engine, EngineError, Image, Target, repository_of},
    kinds::rollback::{Beside, Rollback},
    model::Old,
    text,
};

/// Arguments of `rollback`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The container's name
    container: String,
    /// A tag of its image such as `Tue`, or an image's whole name [default: the newest snapshot that it does not run from]
    tag: Option<String>,
    /// Only list what it can go back to
    #[arg(long, conflicts_with_all = ["tag", "beside", "yes"])]
    list: bool,
    /// Leave the container alone: make a copy of that name beside it, without published ports, for a look
    #[arg(long = "as", value_name = "NAME")]
    beside: Option<String>,
    /// The copy's network instead of the container's; `none` for none
    #[arg(long, value_name = "NETWORK", requires = "beside")]
    network: Option<String>,
    /// Let the copy write to the container's volumes and folders; else it only reads them
    #[arg(long, requires = "beside")]
    write: bool,
    /// How long the new container has to become well [default: as long as its health check may take, and a minute at least]
    #[arg(long, value_name = "TIME", conflicts_with = "beside")]
    wait: Option<Span>,
    /// A port on which the new container must answer, too
    #[arg(long, value_name = "PORT", conflicts_with = "beside")]
    port: Option<u16>,
    /// Start it even if it does not run now
    #[arg(long, conflicts_with = "beside")]
    start: bool,
    /// Keep the old container, as NAME-rusuban-old
    #[arg(long, conflicts_with = "beside")]
    keep_old: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Does it.
pub(super) async fn rollback(context: &mut Context<'_>, arguments: Arguments) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let engine = config.settings.docker.connect().await?;
    let container = match engine.container(&arguments.container).await {
        Ok(container) => container,
        Err(EngineError::NotFound(_)) => {
            return context
                .missing(&format!("there is no container `{}`; `docker ps -a` lists them", arguments.container));
        }
        Err(error) => return Err(error).with_context(|| format!("look at the container {}", arguments.container)),
    };
    let snapshots = engine.targets(&container).await.context("look for snapshots")?;
    if arguments.list {
        return list(context, &config, &container, &snapshots);
    }
    let (name, image) = match find(&engine, &container, &snapshots, arguments.tag.as_deref()).await? {
        Ok(found) => found,
        Err(missing) => return context.missing(&missing),
    };
    if arguments.beside.is_none() && !arguments.yes && !agreed(context, &container, &name)? {
        return Ok(Exit::Interrupted);
    }
    let Arguments { wait, port, start, keep_old, beside, network, write, .. } = arguments;
    let rollback = Rollback {
        container: container.name().to_owned(),
        id: image.id().to_owned(),
        image: name.clone(),
        wait,
        port,
        start,
        old: if keep_old { Old::Kept } else { Old::Removed },
        beside: beside.map(|name| Beside { name, network, writes: write }),
    };
    let doing = format!("rollback {} {name}", container.name());
    run::begin(context, &config, &doing, Request::Rollback(rollback), false).await
}

/// The image that is meant, and the name by which it is called; or what to say when there is none.
async fn find(
    engine: &Engine,
    container: &Container,
    snapshots: &[Target],
    tag: Option<&str>,
) -> anyhow::Result<Result<(String, Image), String>> {
    let own = container.name();
    let hint = format!("`rusuban rollback {own} --list` shows what there is");
    let Some(tag) = tag else {
        let mut others = snapshots.iter().filter(|snapshot| snapshot.image.id() != container.image_id());
        let newest = others.find(|snapshot| snapshot.is_of_container);
        return Ok(match newest {
            Some(snapshot) => Ok((snapshot.name().to_owned(), snapshot.image.clone())),
            None => Err(format!("there is no snapshot of {own} but what it runs from; {hint}")),
        });
    };
    let is_whole = tag.contains([':', '/', '@']);
    if !is_whole
        && let Some(snapshot) = snapshots.iter().find(|one| one.is_of_container && one.tags(None).contains(&tag))
    {
        let names = snapshot.image.names();
        let name = names.iter().find(|name| name.ends_with(&format!(":{tag}"))).copied().unwrap_or(snapshot.image.id());
        return Ok(Ok((name.to_owned(), snapshot.image.clone())));
    }
    let name = match repository_of(container.image()) {
        _ if is_whole => tag.to_owned(),
        Some(repository) => format!("{repository}:{tag}"),
        None => tag.to_owned(),
    };
    match engine.image(&name).await {
        Ok(image) => Ok(Ok((name, image))),
        Err(EngineError::NotFound(_)) => Ok(Err(format!("there is no image `{name}`; {hint}"))),
        Err(error) => Err(error).with_context(|| format!("look at the image {name}")),
    }
}

/// Says what will be done and what not, and asks.
fn agreed(context: &mut Context<'_>, container: &Container, image: &str) -> anyhow::Result<bool> {
    if context.json || !std::io::stdin().is_terminal() {
        return Err(Told::usage(
            "this stops the container and puts another in its place: add `--yes` if that is meant".into(),
        ));
    }
    writeln!(context.out, "{} goes back to {image}; now it runs from {}", container.name(), container.image())?;
    let mounts = container.mounts();
    let mounted: Vec<&str> =
        mounts.iter().filter(|mount| mount.kind != "tmpfs").map(|mount| mount.target.as_str()).collect();
    if !mounted.is_empty() {
        let kept = "what lies in volumes and folders stays as it is today";
        writeln!(context.out, "{}: {}", paint::warning(kept), mounted.join(", "))?;
    }
    writeln!(context.out, "it is stopped meanwhile; if the new one does not become well, all is as it was before")?;
    write!(context.out, "go on? [y/N] ")?;
    context.out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn list(
    context: &mut Context<'_>,
    config: &Config,
    container: &Container,
    snapshots: &[Target],
) -> anyhow::Result<Exit> {
    let runs = |snapshot: &Target| snapshot.image.id() == container.image_id();
    if context.json {
        let all: Vec<_> = snapshots
            .iter()
            .map(|one| {
                json!({
                    "image": one.image.id(), "names": one.image.names(), "at": one.at, "bytes": one.image.bytes(),
                    "is_of_container": one.is_of_container, "runs_now": runs(one),
                })
            })
            .collect();
        writeln!(
            context.out,
            "{}",
            serde_json::to_string_pretty(&json!({ "container": container.name(), "snapshots": all }))?
        )?;
        return Ok(Exit::Fine);
    }
    if snapshots.is_empty() {
        writeln!(context.out, "there is nothing that {} can go back to", container.name())?;
        return Ok(Exit::Fine);
    }
    let (zone, now) = (config.settings.time_zone, context.clock.now());
    let mut table = text::Table::new(["tag", "made", "", "size", ""]);
    for snapshot in snapshots {
        let tags = snapshot.tags(repository_of(container.image())).join(", ");
        let what = match (runs(snapshot), snapshot.is_of_container) {
            (true, _) => "runs now",
            (false, true) => "",
            (false, false) => "no snapshot of it, but an image of that name",
        };
        table.row([
            if tags.is_empty() { snapshot.name().chars().take(19).collect() } else { tags },
            text::moment(snapshot.at, zone),
            text::ago(snapshot.at, now),
            text::size(snapshot.image.bytes()),
            what.to_owned(),
        ]);
    }
    write!(context.out, "{table}")?;
    Ok(Exit::Fine)
}
