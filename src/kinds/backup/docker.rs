//! Sources that a Docker engine knows: where their files are on this machine, and who writes to them.
//!
//! They are read where they lie, or by a helper where that is not seen from here; never through the engine: its archive endpoint locks the
//! container for as long as somebody reads.
use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::{
    consistency::Consistency,
    helper::{self, Helper, Place},
    keys::{From, Source},
};
use crate::{
    docker::{Access, Container, Engine, Mount, Program, access, own},
    kinds::{
        Cx,
        quiet::{self, Hooks, Touched, Way},
    },
    policy::CommandLine,
    text,
    tree::{Tree, TreeReport},
};

/// A source that was found.
pub(super) struct Located {
    /// Where it is read.
    pub(super) tree: Tree,
    engine: Engine,
    touched: Touched,
    helper: Option<Helper>,
}

/// A part of a source.
struct Root {
    /// Where it belongs below the source.
    member: PathBuf,
    /// Where it is on the engine's host.
    place: Place,
    seen: Seen,
}

/// Whether something on the engine's host can be read from here.
enum Seen {
    /// At this path.
    Here(PathBuf),
    /// It cannot, and why.
    Not(anyhow::Error),
}

/// What we see of the engine's host.
struct Sight {
    engine: Engine,
    /// The container that we run in.
    own: Option<Container>,
    /// What lies on the engine's host is not to be looked for here: another machine has the same paths.
    is_elsewhere: bool,
}

/// What a source needs of the engine where it cannot be read from here.
pub(super) fn needs_afar(source: &Source) -> Vec<Access> {
    if needs(source).is_empty() { Vec::new() } else { Program::needs() }
}

/// What a source needs of the engine.
pub(super) fn needs(source: &Source) -> Vec<Access> {
    if !matches!(source.from(), Some(From::Volume(_) | From::Container(_))) {
        return Vec::new();
    }
    let mut needs = vec![access::VERSION, access::CONTAINERS, access::CONTAINER, access::VOLUME];
    match source.consistency() {
        Consistency::None => {}
        Consistency::Pause => needs.extend([access::PAUSE, access::UNPAUSE]),
        Consistency::Stop => needs.extend([access::STOP, access::START]),
        Consistency::Told(_) => needs.extend([access::EXEC, access::EXEC_START, access::EXEC_LOOK]),
    }
    needs
}

/// What it needs besides where a container asks in a label to be stopped.
pub(super) fn needs_by_label(source: &Source) -> Vec<Access> {
    let is_frozen = matches!(source.from(), Some(From::Volume(_) | From::Container(_)))
        && matches!(source.consistency(), Consistency::Pause);
    let why = "a container asks in a label to be stopped, not frozen";
    if is_frozen { vec![access::STOP.rarely(why), access::START.rarely(why)] } else { Vec::new() }
}

/// Finds a source. `servers`: where the backup goes.
///
/// # Errors
/// When it is not there, or cannot be read from here.
pub(super) async fn locate(cx: &Cx, source: &Source, servers: Vec<String>) -> anyhow::Result<Located> {
    let engine = cx.engine().await?;
    let own = engine.own_container().await?;
    let is_elsewhere = engine.is_elsewhere(own.as_ref());
    let sight = Sight { engine, own, is_elsewhere };
    let mut touched = Touched { servers, ..Touched::default() };
    let (name, roots) = match source.from() {
        Some(From::Volume(name)) => {
            let (place, seen) = sight.volume(name, &mut touched).await?;
            (name, vec![Root { member: PathBuf::new(), place, seen }])
        }
        Some(From::Container(name)) => (name, sight.container(cx, name, source.binds, &mut touched).await?),
        _ => bail!("this is no source of Docker's"),
    };
    let is_quiet = source.consistency().is_quiet();
    let hidden = roots.iter().find_map(|root| match &root.seen {
        Seen::Here(_) => None,
        Seen::Not(why) => Some(format!("{why:#}")),
    });
    // One that cannot be read from here has all of them read by a helper.
    let (helper, far) = match hidden {
        None => (None, None),
        Some(why) => {
            let places: Vec<Place> = roots.iter().map(|root| root.place.clone()).collect();
            let hired = helper::hire(cx, &sight.engine, &places, !is_quiet).await;
            let (helper, far) =
                hired.with_context(|| format!("{why}, and no container could be made that reads it for us"))?;
            cx.info(format!("{}: read by a container that is made for it, for {why}", source.name()));
            (Some(helper), Some(far))
        }
    };
    let here = |root: Root| match root.seen {
        Seen::Here(here) if far.is_none() => (root.member, here),
        _ => (root.member, root.place.known),
    };
    let mut here: Vec<(PathBuf, PathBuf)> = roots.into_iter().map(here).collect();
    let tree = match source.from() {
        Some(From::Volume(_)) => Tree::at(&here.swap_remove(0).1).called(name),
        _ => Tree::gathered(name, here),
    };
    // While nobody writes to it, a database and what is beside it are whole together.
    let tree = tree.as_it_is(is_quiet).read_by(far);
    Ok(Located { tree, engine: sight.engine, touched, helper })
}

impl Located {
    /// All is read, or will not be.
    pub(super) async fn leave(self, cx: &Cx) {
        if let Some(helper) = self.helper {
            helper.dismiss(cx).await;
        }
    }

    /// Does `work`, which reads it, while those who write to it are as quiet as the source wants them.
    ///
    /// # Errors
    /// Those of `work`, and of making containers quiet.
    pub(super) async fn while_quiet<T>(
        &self,
        cx: &Cx,
        source: &Source,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let way = match source.consistency() {
            Consistency::Pause => self.frozen_or_stopped(cx, source).await?,
            Consistency::Stop => Way::Stop,
            Consistency::None => {
                let writers = quiet::writers(&self.engine, &self.touched).await?;
                if !writers.is_empty() {
                    cx.warn(format!(
                        "{}: read while {} may write to it, so its files may be of different moments; `consistency = \"pause\"` \
                         reads them as they are at one moment",
                        source.name(),
                        writers.join(", ")
                    ));
                }
                return work.await;
            }
            Consistency::Told(told) => {
                let line = |command: &Option<CommandLine>| command.as_ref().map(CommandLine::arguments);
                let (before, after) = (line(&told.before), line(&told.after));
                let own = source.container.as_deref();
                let container = told.container.as_deref().or(own);
                let hooks = Hooks { container, before: before.as_deref(), after: after.as_deref() };
                return quiet::with_hooks(cx, &self.engine, &self.touched, hooks, work).await;
            }
        };
        quiet::with_quiet(cx, &self.engine, &self.touched, way, work).await
    }
}

impl Located {
    /// Frozen; stopped, if one of them asks for it in a label that counts: it is quieter, and never less.
    async fn frozen_or_stopped(&self, cx: &Cx, source: &Source) -> anyhow::Result<Way> {
        if !cx.services.docker.heeds_labels() {
            return Ok(Way::Pause);
        }
        let asking = quiet::asking_to_stop(&self.engine, &self.touched).await?;
        if asking.is_empty() {
            return Ok(Way::Pause);
        }
        cx.info(format!(
            "{}: stopped, not frozen, while it is read: so says the label `rusuban.backup.stop` of {}",
            source.name(),
            asking.join(", ")
        ));
        Ok(Way::Stop)
    }
}

/// Fails when something changed although all that may write to it were quiet.
///
/// # Errors
/// Then.
pub(super) fn must_not_have_changed(report: &TreeReport) -> anyhow::Result<()> {
    if report.changed > 0 {
        bail!(
            "{} changed while all containers that write to it were quiet: a program outside of them does so too, on the host for instance",
            text::count(usize::try_from(report.changed).unwrap_or(usize::MAX), "file")
        );
    }
    Ok(())
}

impl Sight {
    /// Where a volume is, and whether it is seen from here.
    async fn volume(&self, name: &str, touched: &mut Touched) -> anyhow::Result<(Place, Seen)> {
        let volume = match self.engine.volume(name).await {
            Ok(volume) => volume,
            Err(error) if error.is_not_found() => {
                bail!("there is no volume `{name}`; `docker volume ls` shows those that there are")
            }
            Err(error) => return Err(error).with_context(|| format!("look at the volume `{name}`")),
        };
        touched.volumes.insert(name.to_owned());
        let folder = volume.folder();
        touched.folders.extend(folder.clone());
        let known = Some(volume.mountpoint()).filter(|point| point.is_absolute() && point.parent().is_some());
        let known = folder.clone().or(known.map(Path::to_owned));
        let known = known.unwrap_or_else(|| Path::new("/volumes").join(name));
        let place = Place { source: name.to_owned(), known };
        // Mounted here by its name, it is there whatever keeps it.
        let own = self.own.iter().flat_map(Container::mounts).find(|mount| mount.volume.as_deref() == Some(name));
        if let Some(own) = own {
            return Ok((place, Seen::Here(own.target.into())));
        }
        let what = format!("the volume `{name}`");
        let mount = format!("-v {name}:/volumes/{name}:ro");
        if let Some(folder) = folder {
            let seen = self.look(&what, &folder, &mount).await?;
            return Ok((place, seen));
        }
        let (driver, kind) = (volume.driver(), volume.mounted_kind().unwrap_or("none"));
        if driver != "local" {
            let why = anyhow::anyhow!("{what} is kept by the driver `{driver}`, whose files only a container sees");
            return Ok((place, Seen::Not(why)));
        }
        let seen = match self.look(&what, volume.mountpoint(), &mount).await? {
            Seen::Here(here) if !is_mount_point(&here)? => Seen::Not(anyhow::anyhow!(
                "{what} is of the type {kind}, which Docker mounts only while a container uses it, and it is not mounted at {} now",
                here.display()
            )),
            seen => seen,
        };
        Ok((place, seen))
    }

    /// The volumes of a container, and its binds if they are wanted.
    async fn container(&self, cx: &Cx, name: &str, binds: bool, touched: &mut Touched) -> anyhow::Result<Vec<Root>> {
        let container = match self.engine.container(name).await {
            Ok(container) => container,
            Err(error) if error.is_not_found() => {
                bail!("there is no container `{name}`; `docker ps -a` shows those that there are")
            }
            Err(error) => return Err(error).with_context(|| format!("look at the container `{name}`")),
        };
        let mut mounts = container.mounts();
        mounts.sort_by(|one, other| one.target.cmp(&other.target));
        let (mut roots, mut taken, mut left_out) = (Vec::new(), BTreeSet::new(), 0);
        for mount in &mounts {
            let (place, seen) = match (&mount.volume, mount.kind.as_str()) {
                (Some(volume), _) => self.volume(volume, touched).await?,
                (None, "bind") if binds => {
                    let on_host = Path::new(&mount.source);
                    let what = format!("what `{name}` has at {}", mount.target);
                    let seen = if mount.is_of_the_system() {
                        None
                    } else {
                        let option = format!("-v {0}:{0}:ro", mount.source);
                        Some(self.look(&what, on_host, &option).await?)
                    };
                    let has_files = |seen: &Seen| match seen {
                        Seen::Here(here) => here.is_dir() || here.is_file(),
                        Seen::Not(_) => true,
                    };
                    let Some(seen) = seen.filter(has_files) else {
                        cx.info(format!("{} left out: there are no files in it", mount.source));
                        continue;
                    };
                    touched.folders.push(on_host.to_owned());
                    (Place { source: mount.source.clone(), known: on_host.to_owned() }, seen)
                }
                (None, "bind") => {
                    left_out += 1;
                    continue;
                }
                _ => continue,
            };
            roots.push(Root { member: member(mount, &mut taken), place, seen });
        }
        if roots.is_empty() {
            let binds =
                if left_out > 0 { "; with `binds = true` what is bound into it from the host is kept" } else { "" };
            bail!("the container `{name}` has no volumes{binds}");
        }
        Ok(roots)
    }

    /// Whether something on the engine's host can be read from here. `mount`: how a container gets to see it.
    async fn look(&self, what: &str, on_host: &Path, mount: &str) -> anyhow::Result<Seen> {
        let there = on_host.display();
        let all = "or `-v /var/lib/docker/volumes:/var/lib/docker/volumes:ro` for all volumes";
        if self.is_elsewhere {
            let at = self.engine.address();
            return Ok(Seen::Not(anyhow::anyhow!(
                "{what} lies on the machine of the engine at {at}, and that is not this one"
            )));
        }
        let here = match &self.own {
            Some(own) => match own::seen_in(&own.mounts(), on_host) {
                Some(here) => here,
                None => {
                    return Ok(Seen::Not(anyhow::anyhow!(
                        "{what} lies at {there} on the host, which this container does not see (with `{mount}`, {all}, it would)"
                    )));
                }
            },
            None => on_host.to_owned(),
        };
        let looked = here.clone();
        let looking = tokio::task::spawn_blocking(move || match looked.metadata()?.file_type() {
            kind if kind.is_dir() => std::fs::read_dir(&looked).map(drop),
            kind if kind.is_file() => std::fs::File::open(&looked).map(drop),
            _ => Ok(()),
        });
        let Err(error) = looking.await.context("a thread died")? else { return Ok(Seen::Here(here)) };
        let why = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                anyhow::anyhow!("{what} lies at {}, which this user may not read", here.display())
            }
            std::io::ErrorKind::NotFound => anyhow::anyhow!(
                "{what} lies at {there} on the engine's host, and is not to be found at {} here",
                here.display()
            ),
            _ => {
                let what = format!("{what} lies at {}, and cannot be read", here.display());
                return Err(anyhow::Error::from(error).context(what));
            }
        };
        Ok(Seen::Not(why))
    }
}

fn is_mount_point(path: &Path) -> anyhow::Result<bool> {
    let look = |path: &Path| path.metadata().with_context(|| format!("look at {}", path.display()));
    let above = look(path.parent().unwrap_or(path))?;
    Ok(look(path)?.dev() != above.dev())
}

/// The name below the source: the volume's, or where the container has it if that is no name for people.
fn member(mount: &Mount, taken: &mut BTreeSet<String>) -> PathBuf {
    let name = mount.title();
    let mut free = name.clone();
    for number in 2.. {
        if taken.insert(free.clone()) {
            break;
        }
        free = format!("{name}-{number}");
    }
    free.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_called_as_its_volume_or_as_where_the_container_has_it() {
        let mut taken = BTreeSet::new();
        let mut name = |volume: Option<&str>, target: &str| {
            let mount = Mount {
                kind: "volume".into(),
                volume: volume.map(str::to_owned),
                source: String::new(),
                target: target.into(),
                is_writable: true,
            };
            member(&mount, &mut taken).display().to_string()
        };
        assert_eq!(name(Some("blog-data"), "/data"), "blog-data");
        assert_eq!(name(Some(&"0a".repeat(32)), "/var/lib/mysql"), "var-lib-mysql");
        assert_eq!(name(None, "/blog-data"), "blog-data-2");
        assert_eq!(name(None, "/"), "root");
    }
}
