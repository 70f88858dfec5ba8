//! From what a look found to what its owner wants to hear.
use std::time::Duration;

use super::{condition::Failing, reach::Fail};
use crate::model::watch::{Certificate, State, Trouble, Verdict};

/// Failures and what was found, as a verdict: what is wrong first, then what there was.
pub(super) fn of(
    mut failing: Vec<Failing>,
    short: &str,
    certificate_words: Option<String>,
    took: Option<Duration>,
    certificate: Option<Certificate>,
    insecure: bool,
) -> Verdict {
    let weight = |trouble: &Trouble| match trouble {
        Trouble::Status(_) => 0,
        Trouble::Slow => 2,
        Trouble::Certificate => 3,
        _ => 1,
    };
    failing.sort_by_key(|one| weight(&one.trouble));
    let Some(worst) = failing.first() else {
        let more = match certificate_words {
            Some(_) if insecure => ", certificate not looked at (insecure)".to_owned(),
            Some(words) => format!(", {words}"),
            None => String::new(),
        };
        let what = format!("{short}{more}");
        return Verdict { state: State::Up, what, took, trouble: None, certificate, address: None };
    };
    let state = if worst.trouble == Trouble::Certificate { State::CertificateBad } else { State::Down };
    let told: Vec<&str> = failing.iter().map(|one| one.told.as_str()).collect();
    let what = format!("{} ({short})", told.join("; "));
    Verdict { state, what, took, trouble: Some(worst.trouble.clone()), certificate, address: None }
}

/// A look that came to nothing.
pub(super) fn failed(fail: Fail) -> Verdict {
    let state = match fail.trouble {
        Trouble::NotAllowed => State::Unknown,
        Trouble::Certificate => State::CertificateBad,
        _ => State::Down,
    };
    Verdict { state, what: fail.told, took: None, trouble: Some(fail.trouble), certificate: None, address: None }
}

/// It could not even be asked.
pub(super) fn unasked(error: &anyhow::Error) -> Verdict {
    failed(Fail::new(Trouble::NotAllowed, format!("it cannot be looked at: {error:#}")))
}
