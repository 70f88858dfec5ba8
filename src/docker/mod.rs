//! A Docker engine: containers, images and what is done to them, by its own API.
//!
//! Answers are read leniently, as JSON of which we take what we know: engines from 20.10 on and Podman differ in what they say, and
//! what is copied from one container to the next must not lose fields that we have never heard of.
mod archive;
mod choose;
mod client;
mod container;
mod events;
mod image;
mod settings;
mod snapshots;

pub use archive::{Content, Part, Saved};
pub use choose::{Choice, Chosen};
pub use client::{Engine, EngineError};
pub use container::{Container, Listed, Mount, State};
pub use events::{Event, Events};
pub use image::{Commit, Image, repository_of};
pub use settings::{Address, Docker, DockerSettings};
pub use snapshots::{Snapshot, label};
