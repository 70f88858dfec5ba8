//! `container-update`: containers made anew when there is a newer image, and back by themselves when it is bad.
mod keys;
mod look;
mod tally;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde_json::json;

pub use keys::ContainerUpdate;

use self::{
    look::{LeftOut, Reference, Standing},
    tally::Tally,
};
use super::{
    Cx, Kind, KindEntry, Site, Summary,
    container_snapshot::{room::Room, shelf, take::Taking},
    quiet::Claim,
    swap::{self, NotWell, Replacement},
};
use crate::{
    config::{mistake::Problem, units::Span},
    docker::{
        Access, Container, Defaults, Engine, Listed, Purpose, Spec, access, dependents_first, short_id, swap::refuse,
    },
    model::Old,
    policy::MissedPolicy,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "container-update",
    summary: "Makes containers anew from newer images, and takes them back when those are bad",
    example: include_str!("../../../jobs/container-update.toml"),
    parse: super::read::<ContainerUpdate>,
    schema: ContainerUpdate::json_schema,
    // The hour was chosen because nobody is there then.
    missed: MissedPolicy::Skip,
    class: "network",
    timeout: Some(Span::hours(6)),
};

/// The label in which compose keeps which image it has made a container of.
const COMPOSE_IMAGE: &str = "com.docker.compose.image";

/// A container and the name of its image.
struct Meant {
    container: Container,
    reference: Reference,
}

#[async_trait]
impl Kind for ContainerUpdate {
    fn check(&self, _: &Site) -> Vec<Problem> {
        self.problems()
    }

    fn locks(&self) -> Vec<String> {
        self.choice().exact_names().map(|name| format!("container:{name}")).collect()
    }

    fn engine(&self) -> Vec<Access> {
        let mut needs = vec![access::VERSION, access::CONTAINERS, access::CONTAINER, access::IMAGE];
        if self.report {
            needs.extend(self.pull.then_some(access::REGISTRY));
            return needs;
        }
        needs.extend(self.pull.then_some(access::PULL));
        if self.snapshot {
            needs.extend([
                access::INFO,
                access::IMAGES,
                access::COMMIT,
                access::EVENTS,
                access::TAG,
                access::REMOVE_IMAGE,
            ]);
        }
        needs.extend([access::CREATE, access::UPDATE, access::STOP, access::RENAME, access::START, access::REMOVE]);
        let of_networks = [access::NETWORK, access::VOLUME, access::CONNECT, access::DISCONNECT];
        needs.extend(of_networks.map(|one| one.rarely("containers with volumes, or networks of their own")));
        if self.check.is_some() {
            needs.extend([access::EXEC, access::EXEC_START, access::EXEC_LOOK]);
        }
        needs
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let began = cx.clock.now();
        let engine = cx.engine().await?;
        let chosen = cx.pick(&self.choice(), &engine.containers().await?, Purpose::Update);
        chosen.unmatched.iter().for_each(|unmatched| cx.warn(unmatched));
        let mut tally = Tally { failures: chosen.missing, ..Tally::default() };
        let meant = find(cx, &engine, &chosen.containers, &mut tally).await?;
        let unreachable = if self.pull && !self.report { pull(cx, &engine, &meant).await } else { BTreeMap::new() };
        let mut newer = Vec::new();
        for one in meant {
            let name = one.container.name().to_owned();
            let standing = match unreachable.get(&one.reference) {
                Some(why) => Err(anyhow::anyhow!("{why}")),
                None if self.pull && self.report => {
                    look::at_the_registry(cx, &engine, &one.container, &one.reference).await
                }
                None => look::on_the_host(&engine, &one.container, &one.reference).await,
            };
            match standing {
                Ok(Standing::UpToDate) => tally.up_to_date += 1,
                Ok(Standing::Newer(image)) => newer.push((one, image)),
                Err(why) => tally.failures.push(format!("{name}: {why:#}")),
            }
        }
        if self.report {
            for (one, image) in newer {
                let (name, reference) = (one.container.name(), one.reference.name());
                cx.info(format!(
                    "{name}: {reference} is {} now; it has {}",
                    short_id(&image),
                    short_id(one.container.image_id())
                ));
                tally.newer.push(name.to_owned());
            }
            return tally.end();
        }
        self.update(cx, &engine, &chosen.containers, newer, &mut tally).await?;
        if self.snapshot && !cx.cancelled.is_cancelled() {
            let thinning = async { shelf::thin(cx, &engine, None, began).await.context("remove old snapshots") };
            cx.step("old snapshots", thinning).await?;
        }
        tally.end()
    }
}

/// Those that can be replaced, what others need first.
async fn find(cx: &Cx, engine: &Engine, chosen: &[Listed], tally: &mut Tally) -> anyhow::Result<Vec<Meant>> {
    let ours = engine.ours(cx.services.buckets.values().filter_map(|bucket| bucket.server())).await?;
    let mut containers = Vec::new();
    for listed in chosen {
        match engine.container(&listed.id).await {
            Ok(container) => containers.push(container),
            Err(error) if error.is_not_found() => cx.info(format!("{}: it was removed meanwhile", listed.name)),
            Err(error) => return Err(error).with_context(|| format!("look at the container {}", listed.name)),
        }
    }
    let mut meant = Vec::new();
    for container in dependents_first(containers).into_iter().rev() {
        let found = match look::left_out(&ours, &container) {
            Some(why) => Err(why),
            None => look::reference(engine, &container).await?,
        };
        let name = container.name();
        match found {
            Ok(reference) => meant.push(Meant { container, reference }),
            Err(why) => {
                tally.left_out += 1;
                match why {
                    LeftOut::Fine(why) => cx.info(format!("{name}: left out: {why}")),
                    LeftOut::Look(why) => cx.warn(format!("{name}: left out: {why}")),
                }
            }
        }
    }
    Ok(meant)
}

/// Fetches each image once; why some could not be fetched.
async fn pull(cx: &Cx, engine: &Engine, meant: &[Meant]) -> BTreeMap<Reference, String> {
    let mut unreachable = BTreeMap::new();
    for reference in meant.iter().map(|one| &one.reference).collect::<BTreeSet<_>>() {
        if let Err(error) = look::pull(cx, engine, reference).await {
            unreachable.insert(reference.clone(), format!("{error:#}"));
        }
    }
    unreachable
}

impl ContainerUpdate {
    /// Replaces one after the other. What needs one that has stayed behind stays behind, too.
    async fn update(
        &self,
        cx: &Cx,
        engine: &Engine,
        chosen: &[Listed],
        newer: Vec<(Meant, String)>,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let room = Room::of(engine).await?;
        let mut behind: Vec<Container> = Vec::new();
        for (one, image) in newer {
            let name = one.container.name().to_owned();
            if cx.cancelled.is_cancelled() {
                tally.failures.push(format!("{name}: not begun"));
                continue;
            }
            if let Some(other) = behind.iter().find(|other| one.container.needs(other)) {
                cx.warn(format!("{name}: not updated, because it needs {}, which was not", other.name()));
                tally.behind.push(name);
                behind.push(one.container);
                continue;
            }
            let bad = format!("went back: {name}");
            if !self.again && cx.record.fact(&bad).await? == Some(json!(image)) {
                cx.warn(format!(
                    "{name}: {} ({}) was bad and is not tried again until there is another; `again = true` tries it",
                    one.reference.name(),
                    short_id(&image)
                ));
                tally.behind.push(name);
                behind.push(one.container);
                continue;
            }
            let listed = chosen.iter().find(|listed| listed.id == one.container.id());
            let listed = listed.with_context(|| format!("{name} is not among those chosen"))?.clone();
            match cx.step(&name, self.replace(cx, engine, &room, &one, listed, &image)).await {
                Ok(()) => {
                    cx.info(format!("{name}: updated, {}", Tally::change(one.container.image_id(), &image)));
                    tally.updated.push(format!("{name} {}", Tally::change(one.container.image_id(), &image)));
                }
                Err(error) => {
                    if error.downcast_ref::<NotWell>().is_some() {
                        cx.record.remember(&bad, json!(image)).await?;
                        tally.went_back.push(name.clone());
                    }
                    tally.failures.push(format!("{name}: {error:#}"));
                    behind.push(one.container);
                }
            }
        }
        Ok(())
    }

    async fn replace(
        &self,
        cx: &Cx,
        engine: &Engine,
        room: &Room,
        one: &Meant,
        listed: Listed,
        image: &str,
    ) -> anyhow::Result<()> {
        let name = one.container.name();
        // A backup may have stopped it for a moment: it would be taken for one that does not run.
        let _claim = tokio::select! {
            claim = Claim::take([one.container.id().to_owned()].into()) => claim,
            () = cx.cancelled.cancelled() => bail!("it was asked to stop"),
        };
        let now = engine.container(name).await?;
        ensure!(now.id() == one.container.id(), "it was made anew meanwhile; the next run looks at it again");
        refuse(engine, &now).await?;
        let spec = Spec::of(engine, name).await?;
        if self.snapshot {
            let tags = [format!("before-update-{name}")];
            let repository = one.reference.repository.clone();
            let taking = Taking { cx, engine, room, container: listed, repository, tags: &tags, pause: true };
            taking.take().await.context("take a snapshot before the update")?;
        }
        let label = now.label(COMPOSE_IMAGE).map(|_| (COMPOSE_IMAGE.to_owned(), image.to_owned()));
        let reference = one.reference.name();
        let replacement = Replacement {
            spec: &spec,
            image: &reference,
            defaults: Defaults::OfImage,
            wait: self.wait.map(|wait| wait.0),
            port: self.port,
            check: self.check.as_deref(),
            watch: self.watch.0,
            labels: label.into_iter().collect(),
            volumes: BTreeMap::new(),
            old: Old::Removed,
            start: false,
        };
        swap::replace(cx, engine, &replacement).await
    }
}
