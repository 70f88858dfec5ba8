//! Dynamic DNS: what this host's address is ([`own`]), who must be told of it ([`provider`]), and whether the record says so
//! ([`record`]). What was told when, and when it is told again, is the job's business.
//!
//! All that comes from the network is bounded, in bytes and in time, and believed only as far as it says what was asked.
pub mod address;
pub mod ask;
pub mod own;
pub mod provider;
pub mod query;
pub mod record;
mod xml;

pub use address::{Addresses, Family};
pub use ask::Lines;
pub use provider::{Answer, End, Line, Provider, Refresh, Setting, Wanted};
pub use xml::texts as xml_texts;
