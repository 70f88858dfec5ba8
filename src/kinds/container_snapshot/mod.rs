//! `container-snapshot`: containers committed to images, under tags that come again.
mod flatten;
mod keys;
mod names;
pub(super) mod room;
pub(super) mod shelf;
mod store;
pub(super) mod take;

use std::num::NonZeroU32;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use schemars::JsonSchema;

pub use keys::ContainerSnapshot;

use self::{
    room::Room,
    store::Off,
    take::{Taken, Taking},
};
use super::{
    Cx, Kind, KindEntry, Site, Summary,
    keeping::{How, Keeping, Kept},
    quiet::Claim,
};
use crate::{
    config::{mistake::Problem, units::Span},
    docker::{
        Access, Container, Engine, Image, Kept as ByLabel, Listed, Policy, Purpose, access, own::Need, repository_of,
    },
    policy::MissedPolicy,
    text,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "container-snapshot",
    summary: "Commits containers to images, under weekday and month tags that come again",
    example: include_str!("../../../jobs/container-snapshot.toml"),
    parse: super::read::<ContainerSnapshot>,
    schema: ContainerSnapshot::json_schema,
    missed: MissedPolicy::Latest,
    class: "disk",
    timeout: Some(Span::hours(6)),
};

#[async_trait]
impl Kind for ContainerSnapshot {
    fn check(&self, site: &Site) -> Vec<Problem> {
        self.problems(site)
    }

    fn repository(&self) -> Option<&str> {
        self.repository.as_deref()
    }

    fn locks(&self) -> Vec<String> {
        self.choice().exact_names().map(|name| format!("container:{name}")).collect()
    }

    fn keeps(&self) -> Vec<Keeping> {
        let never_paused = if self.pause { self.never_paused() } else { self.choice() };
        let what = Kept::Layers { choice: self.choice(), never_paused };
        vec![Keeping { step: None, what, how: How::AtOneMoment }]
    }

    fn keeps_databases(&self) -> bool {
        // A container's layer is a file of which little changes from night to night.
        true
    }

    fn engine(&self) -> Vec<Access> {
        const DEEP: &str = "make an image of one layer when a snapshot has too many";
        let mut needs = vec![
            access::VERSION,
            access::INFO,
            access::CONTAINERS,
            access::CONTAINER,
            access::IMAGES,
            access::IMAGE,
            access::COMMIT,
            access::EVENTS,
            access::TAG,
            access::REMOVE_IMAGE,
        ];
        if self.repository.is_some() {
            needs.push(access::SAVE);
            needs.push(access::VOLUME.rarely("know how a volume of a container was made"));
            needs.push(access::NETWORK.rarely("know how a network of a container was made"));
        }
        needs.extend(
            self.pause.then(|| access::UNPAUSE.rarely("thaw a container whose snapshot the engine does not finish")),
        );
        let flattening = [access::CREATE, access::ATTACH, access::EXPORT, access::REMOVE, access::LOAD];
        needs.extend(flattening.map(|one| one.rarely(DEEP)));
        needs
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let began = cx.clock.now();
        let engine = cx.engine().await?;
        let chosen = cx.pick(&self.choice(), &engine.containers().await?, Purpose::Snapshot);
        let mut failures = chosen.missing;
        if failures.is_empty() && chosen.containers.is_empty() {
            bail!(
                "there is no container to keep: {}",
                if chosen.unmatched.is_empty() { "none runs".to_owned() } else { chosen.unmatched.join("; ") }
            );
        }
        chosen.unmatched.iter().for_each(|unmatched| cx.warn(unmatched));
        let containers = without_our_own(cx, &engine, chosen.containers).await?;
        let (named, nameless) = self.name(&engine, &containers).await;
        failures.extend(nameless);
        let room = Room::of(&engine).await?;
        if !room.is_known() && !named.is_empty() {
            cx.info("how much room Docker has left cannot be seen from here, so it is not looked at");
        }
        let never_paused = self.never_paused().pick(&containers).containers;
        let tags = names::tags(&self.patterns(), began.with_timezone(&cx.services.time_zone), cx.run.0);
        let taken = stream::iter(named).map(|(container, repository)| {
            let labels = cx.services.docker.heeds_labels().then(|| Policy::read(&container.labels));
            let asks_not_to = labels.is_some_and(|labels| labels.snapshot == Some(ByLabel::Unpaused));
            let pause = self.pause && !asks_not_to && !never_paused.iter().any(|one| one.id == container.id);
            let taking = Taking { cx, engine: &engine, room: &room, container, repository, tags: &tags, pause };
            async move {
                let name = taking.container.name.clone();
                if cx.cancelled.is_cancelled() {
                    return Err(format!("{name}: not begun"));
                }
                // What a pattern found is in no lock of this run: a backup may have stopped it, or an update be at work on it.
                let _claim = tokio::select! {
                    claim = Claim::take([taking.container.id.clone()].into()) => claim,
                    () = cx.cancelled.cancelled() => return Err(format!("{name}: not begun")),
                };
                cx.step(&name, taking.take()).await.map_err(|error| format!("{name}: {error:#}"))
            }
        });
        let taken: Vec<_> = taken.buffer_unordered(self.at_once()).collect().await;
        let (mut kept, mut bytes) = (Vec::new(), 0);
        for one in taken {
            match one {
                Ok(Taken { container, image, added }) => {
                    bytes += added;
                    kept.push((container, image));
                }
                Err(why) => failures.push(why),
            }
        }
        let mut done = format!(
            "{} kept as {}, {} new",
            text::count(kept.len(), "container"),
            tags.join(" and "),
            text::size(bytes)
        );
        if cx.cancelled.is_cancelled() {
            failures.push("asked to stop before all was done".to_owned());
        } else {
            // What is not off the host yet is not pushed out of it either.
            let mut local = self.keep.and_then(|keep| keep.local).map(NonZeroU32::get);
            match self.store(cx, &engine, &room, &mut kept, !failures.is_empty()).await {
                Ok(None) => {}
                Ok(Some(stored)) => done = format!("{done}; {stored}"),
                Err(error) => {
                    local = None;
                    failures.push(format!("off the host: {error:#}"));
                }
            }
            let thinning = async { shelf::thin(cx, &engine, local, began).await.context("remove old snapshots") };
            cx.step("old snapshots", thinning).await?;
        }
        if failures.is_empty() {
            return Ok(done);
        }
        failures.sort();
        if kept.is_empty() { bail!(failures.join("; ")) } else { bail!("{}; {done}", failures.join("; ")) }
    }
}

impl ContainerSnapshot {
    fn at_once(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.at_once.map_or_else(|| (cores / 2).clamp(1, 4), |at_once| at_once.get() as usize)
    }

    /// The repository of each container's snapshots, and why some have none.
    async fn name(&self, engine: &Engine, containers: &[Listed]) -> (Vec<(Listed, String)>, Vec<String>) {
        let (mut named, mut failures) = (Vec::new(), Vec::new());
        for container in containers {
            let repository = match &self.image {
                Some(pattern) => Ok(names::repository(pattern, &container.name)),
                None => own_repository(engine, container).await,
            };
            match repository {
                Ok(repository) => named.push((container.name.clone(), repository)),
                Err(error) => failures.push(format!("{}: {error:#}", container.name)),
            }
        }
        let collisions = names::collisions(&named);
        for (name, others) in &collisions {
            failures.push(format!(
                "{name}: its snapshots and those of {} would have the same name; write `image = \"snapshots/{{container}}\"`",
                others.join(", ")
            ));
        }
        named.retain(|(name, _)| !collisions.contains_key(name));
        let listed = |name: &String| containers.iter().find(|one| one.name == *name).cloned();
        (named.into_iter().filter_map(|(name, repository)| Some((listed(&name)?, repository))).collect(), failures)
    }

    /// Stores what was taken in the job's repository, if it has one.
    async fn store(
        &self,
        cx: &Cx,
        engine: &Engine,
        room: &Room,
        taken: &mut [(String, Image)],
        is_partial: bool,
    ) -> anyhow::Result<Option<String>> {
        let Some(repository) = self.repository.as_ref().filter(|_| !taken.is_empty()) else { return Ok(None) };
        taken.sort_by(|one, other| one.0.cmp(&other.0));
        Off { cx, engine, room, taken, is_partial }.store(repository, self.rule()).await.map(Some)
    }
}

/// Leaves out the container that this is, which would freeze itself, and the one through which the engine is reached.
async fn without_our_own(cx: &Cx, engine: &Engine, chosen: Vec<Listed>) -> anyhow::Result<Vec<Listed>> {
    let ours = engine.ours([]).await?;
    let mut kept = Vec::new();
    for one in chosen {
        let need = if ours.is_itself(&one.id) {
            Some(Need::Itself)
        } else if ours.is_known_by_id() {
            None
        } else {
            match engine.container(&one.id).await {
                Ok(container) => ours.need(&container),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error.into()),
            }
        };
        match need {
            Some(need) => {
                let what = if need == Need::Itself { "Rusuban runs in it" } else { "Docker is reached through it" };
                cx.info(format!("{}: left out: {what}", one.name));
            }
            None => kept.push(one),
        }
    }
    Ok(kept)
}

/// The name of the image that a container was made of.
async fn own_repository(engine: &Engine, container: &Listed) -> anyhow::Result<String> {
    let container: Container = engine.container(&container.id).await?;
    if let Some(name) = repository_of(container.image()) {
        return Ok(name.to_owned());
    }
    // It was made of a mere id, or its image has lost its name since.
    let image = engine.image(container.image_id()).await?;
    let mut names: Vec<&str> = image.names().into_iter().filter_map(repository_of).collect();
    names.dedup();
    match names[..] {
        [name] => Ok(name.to_owned()),
        _ => bail!(
            "its image has {}; write `image = \"snapshots/{{container}}\"`",
            if names.is_empty() { "no name" } else { "several names" }
        ),
    }
}
