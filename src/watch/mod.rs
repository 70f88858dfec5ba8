//! What becomes of what checks find: how a check is, its incidents, what of them is told, and its history. Pure: the runner brings
//! what was found and the time, the store keeps what comes out.
mod around;
mod histogram;
mod history;
mod machine;
mod settings;
#[cfg(test)]
mod tests;

pub use around::{Seat, Seats, in_order, is_quiet};
pub use histogram::Histogram;
pub use history::{Look, Looks, Summary, code, percent};
pub(crate) use history::{number, state};
pub use machine::{Doubt, Known, Mark, Open, Step, Telling, advance};
pub use settings::{ALL, Pause, WatchSettings, Window};
