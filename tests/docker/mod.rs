//! What is done with a Docker engine, on a real one.
mod acl;
mod afar;
mod back;
mod boot;
mod command;
mod coverage;
mod engine;
mod exec;
mod follow;
mod labels;
mod outside;
mod routes;
mod same;
mod snapshot;
mod spec;
mod update;
mod volumes;
