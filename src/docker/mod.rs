//! A Docker engine: containers, images, volumes and what is done to them, by its own API.
//!
//! Answers are read leniently, as JSON of which we take what we know: engines from 20.10 on and Podman differ in what they say, and
//! what is copied from one container to the next must not lose fields that we have never heard of.
pub mod access;
mod archive;
mod attached;
mod choose;
mod client;
mod container;
mod databases;
mod dump;
mod ending;
mod events;
mod excuse;
mod exec;
mod follow;
mod frames;
mod image;
mod labels;
mod load;
mod on;
mod once;
pub mod own;
mod pull;
mod relation;
mod settings;
mod snapshots;
mod spec;
pub mod swap;
mod targets;
pub mod vessel;
mod volume;

pub use access::Access;
pub use archive::{Content, Part, Saved};
pub use attached::Input;
pub use choose::{Choice, Chosen, is_name};
pub use client::{Engine, EngineError};
pub use container::{Container, Listed, Mount, State};
pub use databases::{Database, DatabaseFound, databases};
pub use dump::{Dump, Said};
pub use ending::{Ender, Place, StillThere};
pub use events::{Event, Events};
pub use exec::{Exec, ExecError, Prepared, Process, mark};
pub use follow::{Following, Seen, Settled};
pub use frames::{Channel, Piece};
pub use image::{Commit, Image, digest, repository_of, short_id, tag_of};
pub use labels::{Kept, Picked, Policy, Purpose, is_host_name, is_ours};
pub use on::On;
pub use once::{Once, OnceEnded, VolumeMount, Working};
pub use pull::Pulled;
pub use relation::{Compose, dependents_first};
pub use settings::{Address, Docker, DockerSettings};
pub use snapshots::{Snapshot, label};
pub use spec::{Created, Creation, Defaults, Origin, Spec};
pub use targets::Target;
pub use vessel::Vessel;
pub use volume::Volume;
