//! Who keeps what: what is on the host beside what the jobs say that they keep. Pure, but for asking where links lead.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};

use super::{
    Coverage, CoverageSettings, Host, Keeper, Thing, Verdict, What,
    host::{Place, PlaceKind, Resident, Use},
    passing,
    settings::Ignored,
};
use crate::{
    docker::{DatabaseFound, Listed},
    job::Job,
    kinds::keeping::{How, Kept},
    model::JobName,
    tree::Excludes,
};

/// The jobs by name.
pub type Jobs = BTreeMap<JobName, Arc<Job>>;

/// What the ledger knows of the jobs.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Jobs whose schedule a person has stopped.
    pub paused: BTreeSet<JobName>,
    /// When a run of a job last did a step well.
    pub done: HashMap<(JobName, String), DateTime<Utc>>,
}

/// The steps of jobs that somebody must look up in the ledger.
#[must_use]
pub fn steps(host: &Host, jobs: &Jobs) -> BTreeSet<(JobName, String)> {
    let judge = Judge { host, claims: claims(host, jobs, &Past::default()), now: DateTime::UNIX_EPOCH };
    judge.claims.into_iter().map(|claim| (claim.job.name.clone(), claim.step)).collect()
}

/// Compares.
#[must_use]
pub fn judge(host: &Host, jobs: &Jobs, past: &Past, settings: &CoverageSettings, now: DateTime<Utc>) -> Coverage {
    let judge = Judge { host, claims: claims(host, jobs, past), now };
    let mut things = Vec::new();
    for place in &host.places {
        let what = match &place.kind {
            PlaceKind::Volume { name, .. } => What::Volume { name: name.clone() },
            PlaceKind::Folder { path, .. } => What::Folder { name: path.display().to_string() },
        };
        things.push(Thing { what, used_by: place.uses.iter().map(in_words).collect(), verdict: judge.place(place) });
        for met in &place.sqlite {
            let what = What::Sqlite { name: met.display().to_string(), place: place.title() };
            let used_by = place.uses.iter().map(|one| one.container.clone()).collect();
            things.push(Thing { what, used_by, verdict: judge.sqlite(place, met) });
        }
    }
    for resident in &host.residents {
        let name = resident.container.name().to_owned();
        for database in &resident.databases {
            let places = judge.places_of(resident, database);
            let place = match places.as_slice() {
                [] => "in the container itself".to_owned(),
                places => {
                    format!("in the {}", places.iter().map(|one| one.title()).collect::<Vec<_>>().join(" and the "))
                }
            };
            let (engine, because) = (database.database, database.because.clone());
            let what = What::Database { name: name.clone(), engine, because, place };
            things.push(Thing {
                what,
                used_by: vec![name.clone()],
                verdict: judge.database(resident, database, &places),
            });
        }
        let what = What::Layer { name: name.clone(), bytes: resident.written.unwrap_or_default() };
        things.push(Thing { what, used_by: vec![name], verdict: judge.layer(resident) });
    }
    let mut notes = host.notes.clone();
    accept(&mut things, &settings.patterns(), &mut notes);
    let more = host.places.iter().filter(|place| place.more_sqlite > 0);
    notes.extend(
        more.map(|place| format!("{}: {} more SQLite databases, not named here", place.title(), place.more_sqlite)),
    );
    things.sort_by(|one, other| (one.verdict.rank(), &one.what).cmp(&(other.verdict.rank(), &other.what)));
    Coverage { things, notes }
}

/// What the settings accept. A database is accepted with the volume that it is in.
fn accept(things: &mut [Thing], patterns: &[Ignored], notes: &mut Vec<String>) {
    let fits_some: Vec<bool> =
        patterns.iter().map(|pattern| things.iter().any(|thing| pattern.fits(&thing.what))).collect();
    let accepted: BTreeMap<String, String> = things
        .iter()
        .filter_map(|thing| {
            let pattern = patterns.iter().find(|pattern| pattern.fits(&thing.what))?;
            Some((format!("{} {}", thing.what.word(), thing.what.name()), pattern.pattern.clone()))
        })
        .collect();
    for thing in things {
        let direct = accepted.get(&format!("{} {}", thing.what.word(), thing.what.name()));
        let within = match &thing.what {
            What::Database { place, .. } => place.strip_prefix("in the ").and_then(|place| accepted.get(place)),
            _ => None,
        };
        if let Some(pattern) = direct.or(within)
            && thing.verdict.rank() < 3
        {
            thing.verdict = Verdict::Accepted { pattern: pattern.clone() };
        }
    }
    let unused = patterns.iter().zip(fits_some).filter(|(_, fits)| !fits);
    notes.extend(unused.map(|(pattern, _)| format!("`{}` in [coverage] ignore fits nothing here", pattern.pattern)));
}

fn in_words(one: &Use) -> String {
    format!("{} at {}{}", one.container, one.target, if one.writes { "" } else { ", read-only" })
}

/// A thing that a job says it keeps.
struct Claim<'a> {
    job: &'a Job,
    step: String,
    kept: Resolved,
    how: How,
    /// Why it does not count, in words.
    but: Option<String>,
    last: Option<DateTime<Utc>>,
}

/// What is claimed, as it is found on this machine.
enum Resolved {
    Path { root: PathBuf, excludes: Excludes, one_file_system: bool },
    Sqlite(PathBuf),
    Volume { name: String, excludes: Excludes },
    Container { name: String, binds: bool, excludes: Excludes },
    Layer { container: String },
    Database { container: String },
    Own,
}

fn claims<'a>(host: &Host, jobs: &'a Jobs, past: &Past) -> Vec<Claim<'a>> {
    let listed: Vec<Listed> = host.residents.iter().map(|resident| resident.listed.clone()).collect();
    let mut claims = Vec::new();
    for job in jobs.values() {
        let but = why_not(job, past);
        let last = |step: &str| past.done.get(&(job.name.clone(), step.to_owned())).copied();
        let told = |how: How| if how == How::AsItIs && job.policies.hooks.before.is_some() { How::Told } else { how };
        for keeping in job.kind.keeps() {
            // What is no pattern was refused when the file was read.
            let read = |exclude: &[String]| Excludes::new(exclude).unwrap_or_default();
            let kept = match keeping.what {
                Kept::Path { path, exclude, one_file_system } => {
                    let root = real(&host.ours.home.join(path));
                    Resolved::Path { root, excludes: read(&exclude), one_file_system }
                }
                Kept::Sqlite(path) => Resolved::Sqlite(real(&host.ours.home.join(path))),
                Kept::Volume { name, exclude } => Resolved::Volume { name, excludes: read(&exclude) },
                Kept::Container { name, binds, exclude } => {
                    Resolved::Container { name, binds, excludes: read(&exclude) }
                }
                Kept::Database { container } => Resolved::Database { container },
                Kept::Own => Resolved::Own,
                Kept::Layers { choice, never_paused } => {
                    let running_on = never_paused.pick(&listed).containers;
                    for one in choice.pick(&listed).containers {
                        let how =
                            if running_on.iter().any(|other| other.id == one.id) { How::AsItIs } else { keeping.how };
                        let (step, kept) = (one.name.clone(), Resolved::Layer { container: one.name });
                        claims.push(Claim { job, last: last(&step), step, kept, how: told(how), but: but.clone() });
                    }
                    continue;
                }
            };
            let step = keeping.step.unwrap_or_default();
            claims.push(Claim { job, last: last(&step), step, kept, how: told(keeping.how), but: but.clone() });
        }
    }
    claims
}

/// Why a job does not keep what it names.
fn why_not(job: &Job, past: &Past) -> Option<String> {
    let name = &job.name;
    if !job.enabled {
        Some(format!("{name} would, and is not enabled"))
    } else if job.schedule.is_none() && job.after.is_empty() {
        Some(format!("{name} does, but only when it is run by hand"))
    } else if past.paused.contains(name) {
        Some(format!("{name} would, and is paused: `rusuban resume {name}`"))
    } else {
        None
    }
}

struct Judge<'a> {
    host: &'a Host,
    claims: Vec<Claim<'a>>,
    now: DateTime<Utc>,
}

impl Judge<'_> {
    fn place(&self, place: &Place) -> Verdict {
        if let Some(because) = &place.passing {
            return Verdict::Passing { because: because.clone() };
        }
        self.verdict(self.on_place(place), false)
    }

    fn sqlite(&self, place: &Place, met: &Path) -> Verdict {
        if let Some(because) = &place.passing {
            return Verdict::Passing { because: because.clone() };
        }
        let path = real(met);
        let within = place.here.as_deref().and_then(|here| path.strip_prefix(real(here)).ok()).map(Path::to_owned);
        let kept = |claim: &&Claim<'_>| match &claim.kept {
            Resolved::Sqlite(file) => *file == path,
            Resolved::Path { root, excludes, .. } => {
                self.is_on_place(claim, place) && path.strip_prefix(root).is_ok_and(|seen| !is_excluded(excludes, seen))
            }
            Resolved::Volume { excludes, .. } | Resolved::Container { excludes, .. } => {
                // A container's volumes are folders of the source, so its patterns see one folder more.
                let seen = within.clone().unwrap_or_default();
                self.is_on_place(claim, place) && !is_excluded(excludes, &seen)
            }
            _ => self.is_on_place(claim, place),
        };
        // Whoever meets one copies it properly.
        self.verdict(self.claims.iter().filter(kept).collect(), false)
    }

    fn database(&self, resident: &Resident, found: &DatabaseFound, places: &[&Place]) -> Verdict {
        let name = resident.container.name();
        if found.in_memory {
            return Verdict::Passing { because: "it was told to keep nothing on its disk".to_owned() };
        }
        let dumped: Vec<&Claim<'_>> = self.dumps_of(name).collect();
        if dumped.iter().any(|claim| claim.but.is_none()) {
            return self.verdict(dumped, false);
        }
        let writes = resident.container.state().is_up();
        if places.is_empty() {
            if let Some(because) = passing::of_layer(resident).filter(|_| !writes) {
                return Verdict::Passing { because };
            }
            return self.verdict(self.on_layer(name).chain(dumped).collect(), writes);
        }
        // All of it must be kept: the place of which least can be said decides.
        let verdicts = places.iter().map(|place| match &place.passing {
            Some(because) => Verdict::Passing { because: because.clone() },
            None => self.verdict(self.on_place(place).into_iter().chain(dumped.iter().copied()).collect(), writes),
        });
        verdicts.min_by_key(Verdict::rank).unwrap_or(Verdict::Unkept { but: Vec::new() })
    }

    fn layer(&self, resident: &Resident) -> Verdict {
        let name = resident.container.name();
        let claims: Vec<_> = self.on_layer(name).collect();
        // What a job keeps is kept, however little it is.
        match (passing::of_layer(resident), claims.iter().any(|claim| claim.but.is_none() && claim.last.is_some())) {
            (Some(because), false) => Verdict::Passing { because },
            _ => self.verdict(claims, false),
        }
    }

    /// Where a database has its files: the volumes and folders around its folder or within it; where that is not known, all that the
    /// container writes to.
    fn places_of(&self, resident: &Resident, found: &DatabaseFound) -> Vec<&Place> {
        let name = resident.container.name();
        let of_container = |place: &&Place| {
            !place.is_of_the_system() && place.uses.iter().any(|one| one.container == name && one.writes)
        };
        let places = self.host.places.iter().filter(of_container);
        let targets = |place: &Place| -> Vec<PathBuf> {
            place.uses.iter().filter(|one| one.container == name).map(|one| PathBuf::from(&one.target)).collect()
        };
        let Some(folder) = found.folder.as_deref().map(Path::new) else { return places.collect() };
        // Of those around it the nearest counts, which hides the others.
        let around = places.clone().filter_map(|place| {
            let depth = targets(place)
                .iter()
                .filter(|target| folder.starts_with(target))
                .map(|target| target.as_os_str().len())
                .max()?;
            Some((depth, place))
        });
        let nearest = around.max_by_key(|(depth, _)| *depth).map(|(_, place)| place);
        let within =
            places.filter(|place| targets(place).iter().any(|target| target.starts_with(folder) && target != folder));
        nearest.into_iter().chain(within).collect()
    }

    fn dumps_of<'b>(&'b self, container: &'b str) -> impl Iterator<Item = &'b Claim<'b>> {
        self.claims
            .iter()
            .filter(move |claim| matches!(&claim.kept, Resolved::Database { container: of } if of == container))
    }

    fn on_layer<'b>(&'b self, container: &'b str) -> impl Iterator<Item = &'b Claim<'b>> {
        self.claims
            .iter()
            .filter(move |claim| matches!(&claim.kept, Resolved::Layer { container: of } if of == container))
    }

    fn on_place(&self, place: &Place) -> Vec<&Claim<'_>> {
        let mut claims: Vec<&Claim<'_>> = self.claims.iter().filter(|claim| self.is_on_place(claim, place)).collect();
        // A volume that is all of a database is kept with it.
        for resident in &self.host.residents {
            let name = resident.container.name();
            for found in &resident.databases {
                let is_all = |one: &Use| {
                    let folder = found.folder.as_deref().map(Path::new);
                    one.container == name && folder.is_some_and(|folder| Path::new(&one.target).starts_with(folder))
                };
                if place.uses.iter().any(is_all) {
                    claims.extend(self.dumps_of(name));
                }
            }
        }
        claims
    }

    fn is_on_place(&self, claim: &Claim<'_>, place: &Place) -> bool {
        match (&claim.kept, &place.kind) {
            (Resolved::Volume { name, .. }, PlaceKind::Volume { name: is, .. }) => name == is,
            (Resolved::Container { name, .. }, PlaceKind::Volume { .. }) => {
                place.uses.iter().any(|one| one.container == *name)
            }
            (Resolved::Container { name, binds, .. }, PlaceKind::Folder { .. }) => {
                *binds && place.uses.iter().any(|one| one.container == *name)
            }
            (Resolved::Path { root, excludes, one_file_system }, _) => {
                let Some(here) = place.here.as_deref().map(real) else { return false };
                let Ok(seen) = here.strip_prefix(root) else { return false };
                !is_excluded(excludes, seen) && (!one_file_system || is_on_one_file_system(root, &here))
            }
            (Resolved::Sqlite(file), PlaceKind::Folder { .. }) => {
                place.here.as_deref().map(real).is_some_and(|here| here == *file)
            }
            (Resolved::Own, _) => {
                place.here.as_deref().map(real).is_some_and(|here| here == real(&self.host.ours.home))
            }
            _ => false,
        }
    }

    /// `writes`: it is a database whose server may write to it while it is read.
    fn verdict(&self, claims: Vec<&Claim<'_>>, writes: bool) -> Verdict {
        let (counted, others): (Vec<_>, Vec<_>) = claims.into_iter().partition(|claim| claim.but.is_none());
        if counted.is_empty() {
            let but: BTreeSet<String> = others.into_iter().filter_map(|claim| claim.but.clone()).collect();
            return Verdict::Unkept { but: but.into_iter().collect() };
        }
        let by = |claims: &[&Claim<'_>]| {
            let mut by: Vec<Keeper> = Vec::new();
            for claim in claims {
                if !by.iter().any(|keeper| keeper.job == claim.job.name) {
                    by.push(Keeper { job: claim.job.name.clone(), last: claim.last, is_late: self.is_late(claim) });
                }
            }
            by
        };
        let (done, not_yet): (Vec<_>, Vec<_>) = counted.into_iter().partition(|claim| claim.last.is_some());
        if done.is_empty() {
            return Verdict::NotYet { by: by(&not_yet) };
        }
        let good: Vec<_> = done.iter().copied().filter(|claim| !writes || claim.how != How::AsItIs).collect();
        if good.is_empty() { Verdict::Inconsistent { by: by(&done) } } else { Verdict::Kept { by: by(&good) } }
    }

    /// Three times due, and not once done.
    fn is_late(&self, claim: &Claim<'_>) -> bool {
        let (Some(schedule), Some(last)) = (&claim.job.schedule, claim.last) else { return false };
        schedule.slots_after(last).take(3).filter(|at| *at <= self.now).count() == 3
    }
}

/// Whether a path within a source, or a folder above it, is left out.
fn is_excluded(excludes: &Excludes, seen: &Path) -> bool {
    seen.ancestors()
        .any(|path| !path.as_os_str().is_empty() && (excludes.fit(path, path != seen) || excludes.fit(path, true)))
}

fn is_on_one_file_system(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| path.metadata().map(|facts| facts.dev()).ok();
    device(one) == device(other)
}

/// Where links lead; a path that is not there is taken as it is written.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.components().collect())
}
