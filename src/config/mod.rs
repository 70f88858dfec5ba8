//! What people write: `rusuban.toml` and `jobs/*.toml`, read into settings and jobs, with every mistake found in one go.
//! Only this module reads the environment.
pub mod mistake;
pub mod secret;
pub mod units;
