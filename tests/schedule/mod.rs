//! The schedule's contract (`docs/schedules.md`), against an oracle that knows neither cron nor croner: it walks a year
//! minute by minute.
pub(crate) mod oracle;
mod slots;
mod warnings;
mod year;
