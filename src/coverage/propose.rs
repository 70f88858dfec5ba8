//! Job files for what nobody keeps yet: written to be read and changed. Pure.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    Coverage, Host, Verdict, What,
    host::{Place, PlaceKind, Resident},
    judge::Jobs,
};
use crate::{docker::Address, model::JobName, text};

/// What is proposed.
#[derive(Clone, Debug, Default)]
pub struct Proposal {
    /// Job files: the name without `.toml`, and the text.
    pub files: Vec<(String, String)>,
    /// What is not proposed, and why.
    pub not: Vec<String>,
}

/// What a proposal has to fit to.
#[derive(Debug)]
pub struct Room<'a> {
    /// The jobs that are there.
    pub jobs: &'a Jobs,
    /// Names of job files that are there or will be.
    pub taken: BTreeSet<String>,
    /// Where backups go.
    pub store: Shelf,
    /// All repositories of the settings.
    pub repositories: Vec<String>,
    /// How the engine is reached.
    pub engine: &'a Address,
    /// Today, for people.
    pub day: String,
}

/// Where proposed backups go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// A repository of the settings.
    Repository(String),
    /// A bucket of the settings.
    Bucket(String),
    /// The bucket that is always there.
    Local,
}

/// Containers that belong together: a compose project, or one alone.
struct Group<'a> {
    name: String,
    is_project: bool,
    residents: Vec<&'a Resident>,
}

/// A source of a proposed backup.
struct Source {
    remark: String,
    lines: Vec<(&'static str, String)>,
}

/// Proposes.
#[must_use]
pub fn propose(host: &Host, coverage: &Coverage, mut room: Room<'_>) -> Proposal {
    let mut proposal = Proposal::default();
    let proposing = Proposing { host, coverage, engine: room.engine };
    let mut left: Vec<&Place> =
        host.places.iter().filter(|place| proposing.is_wanted(place, &mut proposal.not)).collect();
    for group in groups(&host.residents) {
        let sources = proposing.sources(&group, &mut left);
        if !sources.is_empty() {
            let what = if group.is_project { "The compose project" } else { "The container" };
            let members: Vec<String> = group.residents.iter().map(|one| titled(one)).collect();
            let title = match (group.is_project, members.as_slice()) {
                (false, [one]) => format!("{what} {one}"),
                _ => format!("{what} {}: {}", group.name, members.join(", ")),
            };
            let name = room.name(&group.name);
            let text = room.backup(&name, &title, &sources);
            proposal.files.push((name, text));
        }
    }
    if !left.is_empty() {
        let sources: Vec<Source> =
            left.iter().map(|place| Source::of_place(place, None, "Nobody uses it now.".into())).collect();
        let name = room.name("unused-volumes");
        let text = room.backup(&name, "Volumes that no container uses now", &sources);
        proposal.files.push((name, text));
    }
    proposing.snapshots(&mut room, &mut proposal);
    room.updates(host, &mut proposal);
    room.care(&mut proposal);
    let passing = coverage.things.iter().filter(|thing| matches!(thing.verdict, Verdict::Passing { .. }));
    let passing = passing.filter(|thing| !matches!(thing.what, What::Layer { .. })).count();
    if passing > 0 {
        proposal
            .not
            .push(format!("{} that would not be missed; `rusuban coverage` says why", text::count(passing, "thing")));
    }
    proposal
}

fn groups(residents: &[Resident]) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<(String, bool), Vec<&Resident>> = BTreeMap::new();
    for resident in residents {
        let key = match resident.container.compose() {
            Some(of) => (of.project.to_owned(), true),
            None => (resident.container.name().to_owned(), false),
        };
        groups.entry(key).or_default().push(resident);
    }
    groups.into_iter().map(|((name, is_project), residents)| Group { name, is_project, residents }).collect()
}

/// A container and the databases in it.
fn titled(resident: &Resident) -> String {
    let name = resident.container.name();
    let databases: Vec<&str> = resident.databases.iter().map(|found| found.database.name()).collect();
    if databases.is_empty() { name.to_owned() } else { format!("{name} ({})", databases.join(", ")) }
}

struct Proposing<'a> {
    host: &'a Host,
    coverage: &'a Coverage,
    engine: &'a Address,
}

impl<'a> Proposing<'a> {
    /// Whether a job should keep it; says why not, when a person should know.
    fn is_wanted(&self, place: &Place, not: &mut Vec<String>) -> bool {
        // Rusuban's own home is kept by `self-backup`.
        if place.here.as_deref() == Some(&self.host.ours.home) {
            return false;
        }
        // One of its databases may be kept badly, or not at all, although it is itself.
        if !self.is_unkept(|what| is_place(what, place)) {
            return false;
        }
        if let Some(trouble) = &place.trouble {
            not.push(format!("the {}: {trouble}", place.title()));
            return false;
        }
        true
    }

    fn is_unkept(&self, is_it: impl Fn(&What) -> bool) -> bool {
        self.coverage.things.iter().any(|thing| matches!(thing.verdict, Verdict::Unkept { .. }) && is_it(&thing.what))
    }

    /// The sources that keep what these containers use; what they keep is taken out of `left`.
    fn sources(&self, group: &Group<'_>, left: &mut Vec<&'a Place>) -> Vec<Source> {
        let mut sources = Vec::new();
        // A volume without a name is found through its container, and so is a folder in which a database is at work.
        for resident in &group.residents {
            let name = resident.container.name();
            let is_of = |place: &&Place| place.uses.iter().any(|one| one.container == name);
            let has_database =
                |place: &Place| self.database_in(place).is_some_and(|(of, _)| of.container.name() == name);
            let binds = left.iter().filter(|place| is_of(place)).any(|place| is_folder(place) && has_database(place));
            let nameless = left.iter().filter(|place| is_of(place)).any(|place| is_nameless(place));
            if !binds && !nameless {
                continue;
            }
            let of_container = |place: &&Place| is_of(place) && (binds || !is_folder(place));
            let all: Vec<&Place> = self.host.places.iter().filter(of_container).collect();
            if all.iter().any(|place| place.trouble.is_some()) {
                continue;
            }
            let way = self.way(&all);
            let databases: Vec<&str> = resident.databases.iter().map(|found| found.database.name()).collect();
            let what = match databases.as_slice() {
                [] => format!("What {name} keeps in volumes"),
                names => format!("The files of {} in {name}", names.join(" and ")),
            };
            let mut lines = vec![("container", quoted(name))];
            if binds {
                lines.push(("binds", "true".to_owned()));
            }
            lines.extend(way.line());
            sources.push(Source { remark: format!("{what}. {}", way.remark()), lines });
            left.retain(|place| !of_container(place));
        }
        let names: BTreeSet<&str> = group.residents.iter().map(|one| one.container.name()).collect();
        let is_of_group = |place: &&Place| {
            // Whoever writes to it has it; what several groups write to is kept once.
            let writer = place.uses.iter().find(|one| one.writes).or(place.uses.first());
            writer.is_some_and(|one| names.contains(one.container.as_str()))
        };
        let (own, others): (Vec<&Place>, Vec<&Place>) = left.iter().copied().partition(is_of_group);
        *left = others;
        let mut known = BTreeSet::new();
        for place in own {
            let users: BTreeSet<&str> = place.uses.iter().map(|one| one.container.as_str()).collect();
            let users = users.into_iter().collect::<Vec<_>>().join(", ");
            let what = match self.database_in(place) {
                Some((of, database)) => format!("The files of {} in {}", database, of.container.name()),
                None => format!("Used by {users}"),
            };
            let (remark, way) = match &place.kind {
                PlaceKind::Folder { .. } => (format!("{what}."), None),
                PlaceKind::Volume { .. } => {
                    let way = self.way(&[place]);
                    (format!("{what}. {}", way.remark()), Some(way))
                }
            };
            let mut source = Source::of_place(place, way, remark);
            source.have_a_name_of_its_own(place, &mut known);
            sources.push(source);
        }
        sources
    }

    /// The database that has its files there.
    fn database_in(&self, place: &Place) -> Option<(&'a Resident, &'static str)> {
        let title = format!("in the {}", place.title());
        let is_there = |what: &What| match what {
            What::Database { name, engine, place, .. } if place.contains(&title) => Some((name.clone(), *engine)),
            _ => None,
        };
        let (name, engine) = self.coverage.things.iter().find_map(|thing| is_there(&thing.what))?;
        let resident = self.host.residents.iter().find(|resident| resident.container.name() == name)?;
        Some((resident, engine.name()))
    }

    /// What becomes of those who write to these places.
    fn way(&self, places: &[&Place]) -> Way {
        let writers = || {
            let uses = places.iter().flat_map(|place| place.uses.iter().filter(|one| one.writes));
            uses.filter_map(|one| {
                self.host.residents.iter().find(|resident| resident.container.name() == one.container)
            })
        };
        let must_go_on = |resident: &Resident| {
            let is_way = self.engine.host_and_port().is_some_and(|at| resident.container.answers_at(&at));
            resident.is_own || resident.serves.is_some() || is_way
        };
        let cannot_be_stopped = |resident: &Resident| {
            resident.container.is_removed_at_its_end() || resident.container.label("com.docker.swarm.task.id").is_some()
        };
        if writers().any(must_go_on) {
            Way::None
        } else if places.iter().any(|place| self.database_in(place).is_some()) && !writers().any(cannot_be_stopped) {
            Way::Stop
        } else {
            Way::Pause
        }
    }

    /// A job for what containers have written outside of their volumes.
    fn snapshots(&self, room: &mut Room<'_>, proposal: &mut Proposal) {
        let is_unkept = |name: &str| {
            self.is_unkept(|what| matches!(what, What::Layer { name: of, .. } if of == name))
                || self.is_unkept(|what| {
                    matches!(what, What::Database { name: of, place, .. } if of == name && place == "in the container itself")
                })
        };
        let mutable: Vec<&Resident> =
            self.host.residents.iter().filter(|one| !one.is_own && is_unkept(one.container.name())).collect();
        if mutable.is_empty() {
            return;
        }
        let names: Vec<String> = mutable.iter().map(|one| quoted(one.container.name())).collect();
        let list = match names.len() {
            ..=3 => format!("[{}]", names.join(", ")),
            _ => format!("[\n    {},\n]", names.join(",\n    ")),
        };
        let written: Vec<String> = mutable
            .iter()
            .map(|one| format!("{} ({})", one.container.name(), text::size(one.written.unwrap_or_default())))
            .collect();
        let name = room.name("snapshots");
        let repository = match &room.store {
            Shelf::Repository(repository) => format!(
                "\n# Off the host as well; the host then holds two.\nrepository = {}\nkeep       = {{ local = 2, daily = 7, weekly = 4, monthly = 6 }}\n",
                quoted(repository)
            ),
            _ => String::new(),
        };
        let remark = room.remark(&name);
        proposal.files.push((
            name,
            format!(
                "# Containers that have written outside of their volumes, which a new container would not have: {}.\n{remark}\n\
                 kind     = \"container-snapshot\"\nschedule = \"H 1 * * *\"\ncontainers = {list}\n\n\
                 # Seven weekdays and twelve months, under names of their own: `rusuban rollback NAME Tue` takes one back.\n\
                 rotation = \"weekday-month\"\nimage    = \"snapshots/{{container}}\"\n{repository}",
                written.join(", ")
            ),
        ));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    None,
    Pause,
    Stop,
}

impl Way {
    fn remark(self) -> &'static str {
        match self {
            Self::None => "Who writes to it must go on meanwhile, so its files may be of different moments.",
            Self::Pause => "Whoever writes to it stands still for the moment of the copy.",
            Self::Stop => {
                "Whoever writes to it is stopped for the moment of the copy, and started again: then a database is whole."
            }
        }
    }

    fn line(self) -> Option<(&'static str, String)> {
        match self {
            Self::None => Some(("consistency", quoted("none"))),
            Self::Pause => None,
            Self::Stop => Some(("consistency", quoted("stop"))),
        }
    }
}

impl Source {
    fn of_place(place: &Place, way: Option<Way>, remark: String) -> Self {
        let mut lines = match &place.kind {
            PlaceKind::Volume { name, .. } => vec![("volume", quoted(name))],
            PlaceKind::Folder { path, .. } => {
                vec![("path", quoted(&place.here.as_deref().unwrap_or(path).display().to_string()))]
            }
        };
        lines.extend(way.and_then(Way::line));
        Self { remark, lines }
    }

    /// A folder is called by its last part, which another may have as well.
    fn have_a_name_of_its_own(&mut self, place: &Place, known: &mut BTreeSet<String>) {
        let PlaceKind::Folder { path, .. } = &place.kind else { return };
        let last = path.file_name().unwrap_or("root".as_ref()).to_string_lossy().into_owned();
        if !known.insert(last) {
            let whole = path.display().to_string().trim_matches('/').replace('/', "-");
            self.lines.push(("name", quoted(&whole)));
        }
    }
}

impl Room<'_> {
    /// A free name for a job, made of what something is called.
    fn name(&mut self, wished: &str) -> String {
        let plain: String = wished
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' })
            .collect();
        let words: Vec<&str> = plain.split('-').filter(|word| !word.is_empty()).collect();
        let mut base: String = words.join("-").chars().take(55).collect();
        if base.trim_end_matches('-').parse::<JobName>().is_err() {
            "containers".clone_into(&mut base);
        }
        let base = base.trim_end_matches('-');
        let free = (1..).map(|number| if number == 1 { base.to_owned() } else { format!("{base}-{number}") });
        let name = free.into_iter().find(|name| !self.taken.contains(name)).unwrap_or_default();
        self.taken.insert(name.clone());
        name
    }

    fn remark(&self, name: &str) -> String {
        format!(
            "# Proposed by `rusuban init` from what was on this host on {}; change it as you like. `rusuban run {name}` runs it now.",
            self.day
        )
    }

    fn backup(&self, name: &str, title: &str, sources: &[Source]) -> String {
        let (place, keep) = match &self.store {
            Shelf::Repository(repository) => {
                (format!("repository = {}\n", quoted(repository)), "{ daily = 7, weekly = 4, monthly = 12 }")
            }
            Shelf::Bucket(bucket) => (format!("bucket   = {}\n", quoted(bucket)), "{ daily = 7, weekly = 4 }"),
            Shelf::Local => (
                "# A backup that burns with the house is none: name another place, a repository at best, which stores what does not change once.\n\
                 # repository = \"home\"\n"
                    .to_owned(),
                "{ daily = 7, weekly = 4 }",
            ),
        };
        let mut text = format!(
            "# {title}.\n{}\nkind     = \"backup\"\nschedule = \"H H(2-4) * * *\"\n{place}keep     = {keep}\n",
            self.remark(name)
        );
        for source in sources {
            text.push_str(&format!("\n# {}\n[[source]]\n", source.remark));
            let width = source.lines.iter().map(|(key, _)| key.len()).max().unwrap_or_default();
            for (key, value) in &source.lines {
                text.push_str(&format!("{key:width$} = {value}\n"));
            }
        }
        text
    }

    /// A job that tells which containers have a newer image.
    fn updates(&mut self, host: &Host, proposal: &mut Proposal) {
        if self.has_kind("container-update") || !host.residents.iter().any(|one| !one.is_own) {
            return;
        }
        let name = self.name("updates");
        let remark = self.remark(&name);
        proposal.files.push((
            name,
            format!(
                "# Tells once a week which containers have a newer image at their registry. Nothing is fetched or changed.\n{remark}\n\
                 kind     = \"container-update\"\nschedule = \"H H(6-8) * * 1\"\nall      = true\nreport   = true\n"
            ),
        ));
    }

    /// A job that looks after each repository.
    fn care(&mut self, proposal: &mut Proposal) {
        let cared = |repository: &str| {
            let mut jobs = self.jobs.values().filter(|job| job.enabled && job.kind_name == "repository-care");
            jobs.any(|job| job.source.contains(&quoted(repository)))
        };
        let uncared: Vec<String> = self.repositories.iter().filter(|repository| !cared(repository)).cloned().collect();
        for repository in uncared {
            let name = self.name(&format!("care-of-{repository}"));
            let remark = self.remark(&name);
            proposal.files.push((
                name,
                format!(
                    "# The repository {repository}, looked through for damage once a week, and rid of what no backup needs.\n{remark}\n\
                     kind       = \"repository-care\"\nschedule   = \"H H(5-6) * * 0\"\nrepository = {}\n",
                    quoted(&repository)
                ),
            ));
        }
        if self.repositories.is_empty() {
            proposal.not.push(
                "a repository and its care: it needs a password that you keep. Write `[repository.home]` in rusuban.toml, \
                 `rusuban repository init home`, and name it in the jobs"
                    .to_owned(),
            );
        }
    }

    fn has_kind(&self, kind: &str) -> bool {
        self.jobs.values().any(|job| job.enabled && job.kind_name == kind)
    }
}

fn is_place(what: &What, place: &Place) -> bool {
    match (what, &place.kind) {
        (What::Volume { name }, PlaceKind::Volume { name: is, .. }) => name == is,
        (What::Folder { name }, PlaceKind::Folder { path, .. }) => Path::new(name) == path,
        _ => false,
    }
}

fn is_folder(place: &Place) -> bool {
    matches!(place.kind, PlaceKind::Folder { .. })
}

fn is_nameless(place: &Place) -> bool {
    matches!(place.kind, PlaceKind::Volume { is_nameless: true, .. })
}

/// As TOML writes a text.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
