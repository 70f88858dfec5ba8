//! A look at the engine's host: containers, what they have mounted, which databases are in them. Nothing is changed.
use std::{
    collections::BTreeMap,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::passing;
use crate::{
    docker::{Access, Container, DatabaseFound, Engine, Listed, Mount, Volume, access, databases, own},
    tree::live::is_database,
};

/// So many containers are asked about at once.
const AT_ONCE: usize = 8;
/// So many entries of a volume or folder are looked at for SQLite databases, and for so long.
const MOST_ENTRIES: usize = 50_000;
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// So many databases of one place are told one by one.
const MOST_DATABASES: usize = 20;

/// The label of a container that was made for a look at a snapshot.
const LOOK: &str = "rusuban.look";

/// What Rusuban itself has on this machine.
#[derive(Clone, Debug, Default)]
pub struct Ours {
    /// The home folder.
    pub home: PathBuf,
    /// Buckets that are folders here.
    pub buckets: Vec<(String, PathBuf)>,
    /// Buckets that are on a server, and its `host:port`.
    pub servers: Vec<(String, String)>,
}

/// What is on the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its containers, ordered by name.
    pub residents: Vec<Resident>,
    /// Volumes and folders: the volumes first, ordered by name.
    pub places: Vec<Place>,
    /// What could not be looked at.
    pub notes: Vec<String>,
    /// What is Rusuban's own.
    pub ours: Ours,
}

/// A container.
#[derive(Clone, Debug)]
pub struct Resident {
    /// What the engine says of it.
    pub container: Container,
    /// The same in its list.
    pub listed: Listed,
    /// The databases in it.
    pub databases: Vec<DatabaseFound>,
    /// What it has written outside of its volumes.
    pub written: Option<u64>,
    /// It is the one that this process runs in.
    pub is_own: bool,
    /// The bucket that is on it.
    pub serves: Option<String>,
}

/// A volume, or a folder or file of the host.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which of them.
    pub kind: PlaceKind,
    /// Who uses it.
    pub uses: Vec<Use>,
    /// Where it is on this machine.
    pub here: Option<PathBuf>,
    /// Why it cannot be read from here.
    pub trouble: Option<String>,
    /// SQLite databases in it.
    pub sqlite: Vec<PathBuf>,
    /// More of them, that are not named.
    pub more_sqlite: usize,
    /// There is no file in it.
    pub is_empty: bool,
    /// It is not there at all.
    pub is_missing: bool,
    /// It is no file and no folder.
    pub special: Option<&'static str>,
    /// Why it would not be missed.
    pub passing: Option<String>,
}

/// Which kind of place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceKind {
    /// A volume.
    Volume {
        /// Its name.
        name: String,
        /// Nobody gave it one.
        is_nameless: bool,
        /// What the engine mounts for it, such as `nfs`.
        mounted: Option<String>,
    },
    /// A folder or file of the host.
    Folder {
        /// Where.
        path: PathBuf,
        /// It is lent to containers and nothing of theirs.
        is_of_the_system: bool,
    },
}

/// A container that uses a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The container's name.
    pub container: String,
    /// Where it sees it.
    pub target: String,
    /// Whether it may write to it.
    pub writes: bool,
    /// Whether it is up.
    pub is_up: bool,
    /// The bucket that is on the container.
    pub serves: Option<String>,
}

/// What a look asks of the engine.
#[must_use]
pub fn needs() -> Vec<Access> {
    vec![access::VERSION, access::INFO, access::CONTAINERS, access::CONTAINER, access::TOP, access::VOLUMES]
}

impl Host {
    /// Looks.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn look(engine: &Engine, ours: Ours) -> anyhow::Result<Self> {
        let root = engine.info().await.context("ask Docker about itself")?["DockerRootDir"].as_str().map(PathBuf::from);
        let root = root.unwrap_or_else(|| "/var/lib/docker".into());
        let own = engine.own_container().await?;
        let listed = engine.containers().await.context("list the containers")?;
        let residents = stream::iter(listed)
            .map(|listed| async {
                let what = format!("look at the container {}", listed.name);
                resident(engine, listed, own.as_ref(), &ours).await.context(what)
            })
            .buffered(AT_ONCE)
            .try_filter_map(|resident| async { Ok(resident) })
            .try_collect::<Vec<Resident>>()
            .await?;
        let sight = Sight { own: own.as_ref(), is_elsewhere: engine.is_elsewhere(own.as_ref()) };
        let mut places = Vec::new();
        for volume in engine.volumes().await.context("list the volumes")? {
            places.push(place_of_volume(&volume, &residents, sight));
        }
        places.extend(folders(&residents, sight));
        let mut notes = Vec::new();
        let mut looked = Vec::new();
        for place in places {
            let (place, note) = tokio::task::spawn_blocking(move || look_into(place)).await.context("a thread died")?;
            notes.extend(note);
            looked.push(place);
        }
        for place in &mut looked {
            place.passing = passing::of_place(place, &ours, &root);
        }
        Ok(Self { residents, places: looked, notes, ours })
    }
}

/// None of one that is gone by now, or that was made for a look.
async fn resident(
    engine: &Engine,
    listed: Listed,
    own: Option<&Container>,
    ours: &Ours,
) -> anyhow::Result<Option<Resident>> {
    let container = match engine.container_with_size(&listed.id).await {
        Ok(container) => container,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if container.label(LOOK).is_some() {
        return Ok(None);
    }
    // A proxy may not let it through, or the host has no `ps`: then image and environment tell.
    let processes = if container.state().is_up() { engine.processes(&listed.id).await.ok() } else { None };
    let serves = ours.servers.iter().find(|(_, at)| container.answers_at(at)).map(|(bucket, _)| bucket.clone());
    Ok(Some(Resident {
        databases: databases(&container, processes.as_deref()),
        written: container.written(),
        is_own: own.is_some_and(|own| own.id() == container.id()),
        serves,
        listed,
        container,
    }))
}

fn uses(residents: &[Resident], is_it: impl Fn(&Mount) -> bool) -> Vec<Use> {
    let of = |resident: &Resident| -> Vec<Use> {
        let mounts = resident.container.mounts().into_iter().filter(|mount| is_it(mount));
        mounts
            .map(|mount| Use {
                container: resident.container.name().to_owned(),
                target: mount.target,
                writes: mount.is_writable,
                is_up: resident.container.state().is_up(),
                serves: resident.serves.clone(),
            })
            .collect()
    };
    residents.iter().flat_map(of).collect()
}

fn place_of_volume(volume: &Volume, residents: &[Resident], sight: Sight<'_>) -> Place {
    let name = volume.name().to_owned();
    let mounted_here =
        sight.own.into_iter().flat_map(Container::mounts).find(|mount| mount.volume.as_deref() == Some(&name));
    let here = match (mounted_here, volume.folder()) {
        (Some(mount), _) => Ok(mount.target.into()),
        (None, Some(folder)) => seen(sight, &folder, &format!("-v {name}:/volumes/{name}:ro")),
        (None, None) => Err(format!("the files of the volume {name} lie where only a container sees them")),
    };
    let kind = PlaceKind::Volume {
        name: name.clone(),
        is_nameless: volume.is_nameless(),
        mounted: volume.mounted_kind().map(str::to_owned),
    };
    Place::new(kind, uses(residents, |mount| mount.volume.as_deref() == Some(&name)), here)
}

fn folders(residents: &[Resident], sight: Sight<'_>) -> Vec<Place> {
    let mut found: BTreeMap<PathBuf, Mount> = BTreeMap::new();
    for mount in residents.iter().flat_map(|resident| resident.container.mounts()) {
        if mount.kind == "bind" && mount.volume.is_none() && !mount.source.is_empty() {
            found.insert(mount.source.clone().into(), mount);
        }
    }
    let place = |(path, mount): (PathBuf, Mount)| {
        let here = seen(sight, &path, &format!("-v {0}:{0}:ro", path.display()));
        let uses = uses(residents, |one| one.kind == "bind" && Path::new(&one.source) == path);
        Place::new(PlaceKind::Folder { is_of_the_system: mount.is_of_the_system(), path }, uses, here)
    };
    found.into_iter().map(place).collect()
}

/// What we see of the engine's host.
#[derive(Clone, Copy)]
struct Sight<'a> {
    /// The container that we run in.
    own: Option<&'a Container>,
    /// What lies there is not to be looked for here: another machine has the same paths.
    is_elsewhere: bool,
}

/// Where something of the host is here.
fn seen(sight: Sight<'_>, on_host: &Path, mount: &str) -> Result<PathBuf, String> {
    if sight.is_elsewhere {
        return Err(format!("{} is on the machine of the engine, and that is not this one", on_host.display()));
    }
    let Some(own) = sight.own else { return Ok(on_host.to_owned()) };
    own::seen_in(&own.mounts(), on_host)
        .ok_or_else(|| format!("{} is not seen in this container: start it with `{mount}`", on_host.display()))
}

impl Place {
    fn new(kind: PlaceKind, uses: Vec<Use>, seen: Result<PathBuf, String>) -> Self {
        let (here, trouble) = match seen {
            Ok(here) => (Some(here), None),
            Err(why) => (None, Some(why)),
        };
        Self {
            kind,
            uses,
            here,
            trouble,
            sqlite: Vec::new(),
            more_sqlite: 0,
            is_empty: false,
            is_missing: false,
            special: None,
            passing: None,
        }
    }

    /// What it is called, such as `volume data`.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.kind {
            PlaceKind::Volume { name, .. } => format!("volume {name}"),
            PlaceKind::Folder { path, .. } => format!("folder {}", path.display()),
        }
    }

    /// Whether it is one of the host's system, which is lent to containers.
    #[must_use]
    pub fn is_of_the_system(&self) -> bool {
        matches!(self.kind, PlaceKind::Folder { is_of_the_system: true, .. })
    }
}

/// What is in it, as far as it takes no long time; and what could not be seen.
fn look_into(mut place: Place) -> (Place, Option<String>) {
    if matches!(place.kind, PlaceKind::Folder { is_of_the_system: true, .. }) {
        return (place, None);
    }
    let Some(here) = place.here.clone() else { return (place, None) };
    let facts = match here.metadata() {
        Ok(facts) => facts,
        Err(error) => {
            place.is_missing = error.kind() == std::io::ErrorKind::NotFound;
            place.trouble = Some(unreadable(&here, &error));
            return (place, None);
        }
    };
    let kind = facts.file_type();
    if kind.is_file() {
        if open_is_database(&here).unwrap_or(false) {
            place.sqlite.push(here);
        } else if let Err(error) = std::fs::File::open(&here) {
            place.trouble = Some(unreadable(&here, &error));
        }
        return (place, None);
    }
    if !kind.is_dir() {
        place.special = Some(if kind.is_socket() { "a socket" } else { "no file and no folder" });
        return (place, None);
    }
    if let Err(error) = std::fs::read_dir(&here) {
        place.trouble = Some(unreadable(&here, &error));
        return (place, None);
    }
    let found = search(&here);
    place.is_empty = found.files == 0 && found.is_whole;
    place.more_sqlite = found.databases.len().saturating_sub(MOST_DATABASES);
    place.sqlite = found.databases;
    place.sqlite.truncate(MOST_DATABASES);
    let note = (!found.is_whole).then(|| {
        format!(
            "{}: not all of it was looked through for SQLite databases, only {} of its files",
            place.title(),
            found.files
        )
    });
    (place, note)
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!("{} may not be read by this user: run Rusuban as root", path.display())
        }
        std::io::ErrorKind::NotFound => format!("{} is not to be found here", path.display()),
        _ => format!("{}: {error}", path.display()),
    }
}

struct Searched {
    databases: Vec<PathBuf>,
    /// What is no folder.
    files: usize,
    /// All was looked at.
    is_whole: bool,
}

/// Looks for SQLite databases, never through a link.
fn search(folder: &Path) -> Searched {
    let (mut databases, mut entries, mut files, mut is_whole) = (Vec::new(), 0, 0, true);
    let (mut left, began) = (vec![folder.to_owned()], Instant::now());
    while let Some(below) = left.pop() {
        let Ok(found) = std::fs::read_dir(&below) else {
            is_whole = false;
            continue;
        };
        for entry in found.flatten() {
            entries += 1;
            if entries > MOST_ENTRIES || began.elapsed() > LONGEST_LOOK {
                return Searched { databases, files, is_whole: false };
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path()),
                kind => {
                    files += 1;
                    // A pipe would be waited for.
                    let is_file = kind.is_ok_and(|kind| kind.is_file());
                    if is_file && open_is_database(&entry.path()).unwrap_or(false) {
                        databases.push(entry.path());
                    }
                }
            }
        }
    }
    databases.sort();
    Searched { databases, files, is_whole }
}

fn open_is_database(path: &Path) -> std::io::Result<bool> {
    is_database(&mut std::fs::File::open(path)?)
}
