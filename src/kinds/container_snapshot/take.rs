//! One container: guards, the commit, a look at what came of it, its names.
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use chrono::SecondsFormat;
use tokio::time::Instant;

use super::{flatten, room::Room};
use crate::{
    docker::{Commit, Container, Engine, EngineError, Event, Image, Listed, Snapshot, State, label},
    kinds::Cx,
    text,
};

/// From so many layers on a person should know.
const MANY_LAYERS: usize = 60;
/// And from so many on a snapshot is made into a single one. Docker's own limit is 125, where a commit fails.
const TOO_MANY_LAYERS: usize = 100;
/// So many times what a container has written must be free before it is copied.
const SPARE: u64 = 2;
/// How long events of a commit that has ended may still be on their way.
const STRAGGLERS: Duration = Duration::from_millis(200);
/// How often an engine is asked whether it has ended what it was told to do.
const POLL: Duration = Duration::from_millis(500);
/// An engine that went away may take so long to come back.
const COMES_BACK: Duration = Duration::from_secs(60);
/// The least that a commit whose connection broke is waited for, and the slowest that it may be, in bytes a second.
const LEAST_WAIT: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 5 << 20;

/// A snapshot about to be taken.
pub(in crate::kinds) struct Taking<'a> {
    pub(in crate::kinds) cx: &'a Cx,
    pub(in crate::kinds) engine: &'a Engine,
    pub(in crate::kinds) room: &'a Room,
    pub(in crate::kinds) container: Listed,
    pub(in crate::kinds) repository: String,
    pub(in crate::kinds) tags: &'a [String],
    pub(in crate::kinds) pause: bool,
}

/// A snapshot that was taken.
pub(in crate::kinds) struct Taken {
    pub(in crate::kinds) container: String,
    pub(in crate::kinds) image: Image,
    /// Bytes above the container's own image that no snapshot had before.
    pub(in crate::kinds) added: u64,
}

impl Taking<'_> {
    /// Takes it.
    pub(in crate::kinds) async fn take(&self) -> anyhow::Result<Taken> {
        let name = &self.container.name;
        match self.attempt(&self.container.id).await {
            // It has been re-created since we looked: what has its name now is what is meant.
            Err(error) if is_gone(&error) => {
                let anew = self.engine.container(name).await.context("it was removed meanwhile")?;
                ensure!(anew.id() != self.container.id, error);
                self.attempt(anew.id()).await
            }
            done => done,
        }
    }

    async fn attempt(&self, id: &str) -> anyhow::Result<Taken> {
        let (cx, engine, name) = (self.cx, self.engine, &self.container.name);
        let container = engine.container_with_size(id).await?;
        let base = match engine.image(container.image_id()).await {
            Ok(image) => Some(image),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let previous = engine.snapshots(label::CONTAINER, name).await?.into_iter().next();
        self.tags_are_free().await?;
        let _held = self.room.take(container.written().unwrap_or_default(), SPARE)?;
        let (image, frozen) = self.commit(&container).await?;
        let kept = match self.finish(&image, base.as_ref()).await {
            Ok(kept) => kept,
            Err(error) => {
                let _ = engine.remove_image(&image).await;
                return Err(error);
            }
        };
        for tag in self.tags {
            engine
                .tag(kept.id(), &self.repository, tag)
                .await
                .with_context(|| format!("name it {}", self.named(tag)))?;
            let found = engine.image(&self.named(tag)).await?;
            ensure!(found.id() == kept.id(), "{} is another image than the one just made", self.named(tag));
        }
        let above = kept.bytes().saturating_sub(base.as_ref().map_or(0, Image::bytes));
        let same = previous.filter(|previous| kept.layers().iter().eq(&previous.layers));
        let size = match &same {
            Some(previous) => format!("nothing new since {}", text::moment(previous.at, cx.services.time_zone)),
            None => format!("{} above its image", text::size(above)),
        };
        cx.info(format!("{name}: kept as {}, {size}{frozen}", self.names().join(" and ")));
        self.tell_what_is_not_held(&container);
        Ok(Taken { container: name.clone(), added: if same.is_some() { 0 } else { above }, image: kept })
    }

    fn named(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repository)
    }

    fn names(&self) -> Vec<String> {
        self.tags.iter().map(|tag| self.named(tag)).collect()
    }

    /// A name that somebody else gave to an image is not taken from it.
    async fn tags_are_free(&self) -> anyhow::Result<()> {
        for name in self.names() {
            match self.engine.image(&name).await {
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
                Ok(image) => match Snapshot::of(&image) {
                    Some(snapshot) if snapshot.container == self.container.name => {}
                    Some(snapshot) => bail!("{name} is the name of a snapshot of {} already", snapshot.container),
                    None => bail!(
                        "{name} is the name of an image that is not ours; `docker rmi {name}` would free it, or write `image = \"snapshots/{{container}}\"`"
                    ),
                },
            }
        }
        Ok(())
    }

    /// Commits, and says in words how long the container stood still.
    async fn commit(&self, container: &Container) -> anyhow::Result<(String, String)> {
        let (cx, engine, name) = (self.cx, self.engine, &self.container.name);
        let id = format!("{}-{}-{}-{}", cx.job, cx.run, &container.id()[..12], cx.clock.now().timestamp_millis());
        let labels = [
            (label::CONTAINER, name.clone()),
            (label::JOB, cx.job.to_string()),
            (label::RUN, cx.run.to_string()),
            (label::AT, cx.clock.now().to_rfc3339_opts(SecondsFormat::Millis, true)),
            (label::NAMES, self.names().join(" ")),
            (label::ID, id.clone()),
        ];
        let pause = self.pause && container.state() == State::Running;
        let comment = Snapshot::comment(name, cx.job.as_str());
        let commit = Commit { container: container.id(), pause, comment: &comment, labels: &labels };
        let events = engine.events(container.id(), &["pause", "unpause"]).await?;
        let began = Instant::now();
        let image = match engine.commit(&commit).await {
            Ok(image) => image,
            Err(error) if error.is_open() => {
                cx.warn(format!("{name}: {error}; waiting for what Docker makes of it"));
                self.wait_for(&id, container, pause).await?
            }
            Err(error) => return Err(error.into()),
        };
        let took = began.elapsed();
        let frozen = match pause {
            false if container.state().is_up() => ", while it ran on".to_owned(),
            false => String::new(),
            true => match still(&events.until("unpause", STRAGGLERS).await) {
                Some(still) => format!(", and stood still for {}", text::duration(still)),
                None => format!(", and stood still for at most {}", text::duration(took)),
            },
        };
        Ok((image, frozen))
    }

    /// The connection has ended, which the engine does not care about: it goes on, and the container stands still until it is done.
    async fn wait_for(&self, id: &str, container: &Container, pause: bool) -> anyhow::Result<String> {
        let expected = Duration::from_secs(container.written().unwrap_or_default() / SLOWEST).max(LEAST_WAIT);
        let label = format!("{}={id}", label::ID);
        let made = async || Ok::<_, EngineError>(self.engine.images_labelled(&label).await?.into_iter().next());
        let (began, mut seen) = (Instant::now(), Instant::now());
        loop {
            tokio::time::sleep(POLL).await;
            match made().await {
                Ok(Some(image)) => return Ok(image),
                Ok(None) => seen = Instant::now(),
                Err(error) if seen.elapsed() > COMES_BACK => return Err(error).context("wait for its snapshot"),
                Err(_) => continue,
            }
            let state = match self.engine.container(container.id()).await {
                Ok(now) => now.state(),
                Err(error) if error.is_not_found() => return Err(error.into()),
                Err(_) => continue,
            };
            // It has thawed without leaving an image, and a moment was given to one that was just about to be there.
            if pause && state != State::Paused && began.elapsed() > 4 * POLL {
                return made().await?.context("Docker has given up its snapshot");
            }
            if began.elapsed() > expected {
                if pause && state == State::Paused {
                    self.engine.unpause(container.id()).await.context("let it run on")?;
                    bail!(
                        "Docker has not made its snapshot within {}; it stood still and runs on now",
                        text::duration(expected)
                    );
                }
                bail!("Docker has not made its snapshot within {}", text::duration(expected));
            }
        }
    }

    /// Looks at what was committed, and makes it flat when it has become too deep.
    async fn finish(&self, image: &str, base: Option<&Image>) -> anyhow::Result<Image> {
        let (cx, engine, name) = (self.cx, self.engine, &self.container.name);
        let committed = engine.image(image).await.context("look at the snapshot")?;
        self.look(&committed, base)?;
        let layers = committed.layers().len();
        if layers < MANY_LAYERS {
            return Ok(committed);
        }
        let why = "one more comes with each time that the container is made anew from a snapshot";
        if layers < TOO_MANY_LAYERS {
            cx.warn(format!(
                "{name}: its snapshot has {layers} layers; {why}, and from {TOO_MANY_LAYERS} on all are made into one"
            ));
            return Ok(committed);
        }
        let flat = flatten::flatten(cx, engine, &committed).await.context("make its layers into one")?;
        engine.remove_image(image).await.context("remove the snapshot of many layers")?;
        let flat = engine.image(&flat).await?;
        cx.warn(format!(
            "{name}: its snapshot had {layers} layers ({why}) and was made into one of {}, which shares nothing with others; \
             a container made anew from it has few layers again",
            text::size(flat.bytes())
        ));
        Ok(flat)
    }

    /// Whether it is what was asked for: the layers of the container's image, and at most one more.
    fn look(&self, kept: &Image, base: Option<&Image>) -> anyhow::Result<()> {
        let snapshot = Snapshot::of(kept).context("the snapshot does not say that it is one")?;
        ensure!(snapshot.container == self.container.name, "the snapshot says that it is of {}", snapshot.container);
        ensure!(!kept.layers().is_empty(), "the snapshot has no layers");
        if let Some(base) = base {
            let (below, all) = (base.layers(), kept.layers());
            ensure!(all.starts_with(&below), "the snapshot does not stand on the layers of its container's image");
            ensure!(all.len() <= below.len() + 1, "the snapshot has more layers than it should");
        }
        Ok(())
    }

    /// What is mounted is not in the image.
    fn tell_what_is_not_held(&self, container: &Container) {
        let not_held: Vec<(String, String)> = container.mounts().iter().filter_map(not_held).collect();
        if not_held.is_empty() {
            return;
        }
        let what: Vec<&str> = not_held.iter().map(|(what, _)| what.as_str()).collect();
        self.cx.info(format!("{}: not in the snapshot: {}", self.container.name, what.join(", ")));
        self.cx.info("  lines for a `backup` job that keeps them:");
        for (_, line) in &not_held {
            // TOML wants a table's head alone on its line.
            self.cx.info("    [[source]]");
            self.cx.info(format!("    {line}"));
        }
    }
}

/// What a mount keeps out of the image, and the line of a backup job that would keep it.
fn not_held(mount: &crate::docker::Mount) -> Option<(String, String)> {
    match (mount.kind.as_str(), &mount.volume) {
        ("volume", Some(volume)) => {
            Some((format!("volume {} ({})", short(volume), mount.target), format!("volume = \"{volume}\"")))
        }
        ("bind", _) if !mount.is_of_the_system() => {
            Some((format!("{} ({})", mount.source, mount.target), format!("path = \"{}\"", mount.source)))
        }
        _ => None,
    }
}

/// Volumes without a name have 64 digits.
fn short(volume: &str) -> &str {
    if volume.len() == 64 { &volume[..12] } else { volume }
}

/// How long it stood still.
fn still(events: &[Event]) -> Option<Duration> {
    let at = |action: &str| events.iter().find(|event| event.action == action).map(|event| event.at);
    let nanoseconds = at("unpause")?.checked_sub(at("pause")?)?;
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<EngineError>().is_some_and(EngineError::is_not_found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::Mount;

    #[test]
    fn what_a_snapshot_does_not_hold_is_offered_to_a_backup() {
        let mount = |kind: &str, volume: Option<&str>, source: &str| Mount {
            kind: kind.into(),
            volume: volume.map(Into::into),
            source: source.into(),
            target: "/t".into(),
            is_writable: true,
        };
        let pair = |what: &str, line: &str| Some((what.to_owned(), line.to_owned()));
        let id = "ab".repeat(32);
        assert_eq!(not_held(&mount("volume", Some("data"), "/v/data")), pair("volume data (/t)", "volume = \"data\""));
        assert_eq!(
            not_held(&mount("volume", Some(&id), "/v")),
            pair("volume abababababab (/t)", &format!("[[source]] volume = \"{id}\""))
        );
        assert_eq!(not_held(&mount("bind", None, "/srv/www")), pair("/srv/www (/t)", "path = \"/srv/www\""));
        for of_the_system in ["/var/run/docker.sock", "/etc/localtime", "/dev/snd", "/proc"] {
            assert_eq!(not_held(&mount("bind", None, of_the_system)), None, "{of_the_system}");
        }
        assert_eq!(not_held(&mount("bind", None, "/devices")).map(|(what, _)| what), Some("/devices (/t)".to_owned()));
        assert_eq!(not_held(&mount("tmpfs", None, "")), None);
    }

    #[test]
    fn the_time_between_pause_and_unpause_is_told() {
        let event = |action: &str, at| Event { action: action.into(), at, ..Event::default() };
        assert_eq!(still(&[event("pause", 5_000_000), event("unpause", 9_000_000)]), Some(Duration::from_millis(4)));
        assert_eq!(still(&[event("pause", 5)]), None);
        assert_eq!(still(&[event("unpause", 5), event("pause", 9)]), None);
    }
}
