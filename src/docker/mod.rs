//! A Docker engine: containers, images, volumes and what is done to them, by its own API.
//!
//! Answers are read leniently, as JSON of which we take what we know: engines from 20.10 on and Podman differ in what they say, and
//! what is copied from one container to the next must not lose fields that we have never heard of.
pub mod access;
mod address;
mod archive;
mod attached;
mod choose;
mod client;
mod container;
mod dump;
mod ending;
mod events;
mod excuse;
mod exec;
mod frames;
mod helper;
mod image;
mod load;
mod once;
pub mod own;
mod pull;
mod relation;
mod settings;
mod snapshots;
mod spec;
mod ssh;
pub mod swap;
mod targets;
mod tls;
mod vessel;
mod volume;

pub use access::Access;
pub use address::Address;
pub use archive::{Content, Part, Saved};
pub use attached::Input;
pub use choose::{Choice, Chosen, is_name};
pub use client::{Engine, EngineError};
pub use container::{Container, Listed, Mount, State};
pub use dump::{Dump, Said};
pub use ending::{Ender, Place, StillThere};
pub use events::{Event, Events};
pub use exec::{Exec, ExecError, Prepared, Process, mark};
pub use frames::{Channel, Piece};
pub use helper::Program;
pub use image::{Commit, Image, digest, repository_of, short_id, tag_of};
pub use once::{Helping, Once, OnceEnded, VolumeMount, Working};
pub use pull::Pulled;
pub use relation::{Compose, dependents_first};
pub use settings::{Docker, DockerSettings};
pub use snapshots::{Snapshot, label};
pub use spec::{Created, Creation, Defaults, Origin, Spec};
pub use ssh::Destination;
pub use targets::Target;
pub use tls::TlsSettings;
pub use vessel::{Seat, Vessel};
pub use volume::Volume;
