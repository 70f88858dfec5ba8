//! What is done with a Docker engine, on a real one.
mod acl;
mod afar;
mod back;
mod command;
mod engine;
mod exec;
mod outside;
mod same;
mod snapshot;
mod spec;
mod update;
mod volumes;
