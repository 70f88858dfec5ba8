//! What would not be missed, and why. Pure: the facts were gathered by [`host`](super::host).
use std::path::Path;

use super::host::{Ours, Place, PlaceKind, Resident, Use};

/// A container that has written less than this outside of its volumes has left traces there, such as the number of its process.
pub(super) const LITTLE: u64 = 1 << 20;

/// Why a volume or a folder would not be missed, if it would not.
pub(super) fn of_place(place: &Place, ours: &Ours, docker_root: &Path) -> Option<String> {
    let runs = place.uses.iter().any(|one| one.is_up);
    match &place.kind {
        PlaceKind::Volume { mounted: Some(kind), .. } if kind == "tmpfs" => return Some("it is in memory".to_owned()),
        PlaceKind::Volume { is_nameless: true, .. } if place.uses.is_empty() => {
            return Some("it has no name, and no container uses it".to_owned());
        }
        PlaceKind::Volume { is_nameless: true, .. } if !runs => {
            return Some("it has no name, and its container does not run".to_owned());
        }
        PlaceKind::Volume { .. } => {}
        PlaceKind::Folder { path, is_of_the_system } => {
            if *is_of_the_system {
                return Some("it is a part of the host's system".to_owned());
            }
            if path.starts_with(docker_root) {
                return Some("it is Docker's own".to_owned());
            }
            if let Some(special) = place.special {
                return Some(format!("it is {special}"));
            }
            if place.is_missing {
                return Some("it is not there".to_owned());
            }
        }
    }
    let held = ours.buckets.iter().find(|(_, folder)| place.here.as_ref().is_some_and(|here| here.starts_with(folder)));
    if let Some((bucket, _)) = held {
        return Some(format!("backups are kept there, in the bucket `{bucket}`"));
    }
    let served = |one: &Use| one.serves.is_some();
    if !place.uses.is_empty() && place.uses.iter().all(served) {
        let bucket = place.uses.iter().find_map(|one| one.serves.as_deref()).unwrap_or_default();
        return Some(format!("backups are kept there, in the bucket `{bucket}`"));
    }
    if matches!(place.kind, PlaceKind::Folder { .. }) && place.uses.iter().all(|one| !one.writes) {
        return Some("containers only read it; a `path` source keeps it".to_owned());
    }
    place.is_empty.then(|| "there is nothing in it".to_owned())
}

/// Why what a container has written outside of its volumes would not be missed.
pub(super) fn of_layer(resident: &Resident) -> Option<String> {
    let container = &resident.container;
    if resident.is_own {
        return Some("Rusuban runs in it".to_owned());
    }
    if container.is_removed_at_its_end() {
        return Some("the container was started with `--rm`".to_owned());
    }
    if resident.serves.is_some() {
        return Some("backups are kept by it".to_owned());
    }
    let written = resident.written.unwrap_or_default();
    if written < LITTLE {
        return Some(format!("only {} were written outside of volumes", crate::text::size(written)));
    }
    let policy = container.raw()["HostConfig"]["RestartPolicy"]["Name"].as_str().unwrap_or_default();
    if !container.state().is_up() && matches!(policy, "" | "no") {
        return Some("the container has ended, and nothing starts it again".to_owned());
    }
    None
}
