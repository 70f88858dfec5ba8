//! A domain's registration: when it ends, by RDAP. Registries are asked once a day, whatever the job's schedule is.
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use hyper::{Method, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Looking,
    condition::{self, Condition, Found, Subject},
    page::Page,
    reach::{Fail, Way},
    verdict,
};
use crate::{
    config::secret::TextOrSecret,
    model::watch::{State, Trouble, Verdict},
};

/// What a condition about a registration can ask.
pub const SUBJECT: Subject = Subject { name: "a registration", words: &["domain"] };

/// Who knows which registry to ask, and sends us there.
pub const RDAP: &str = "https://rdap.org/";

/// What is known is good for so long.
const GOOD_FOR: TimeDelta = TimeDelta::hours(24);
/// When nothing could be learnt it is tried again after so long.
const AGAIN: TimeDelta = TimeDelta::hours(1);
/// What was known is told for so long while nobody can be asked.
const OLDEST: TimeDelta = TimeDelta::days(7);

/// A domain that is to stay registered.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Its name: `example.org`.
    pub name: String,
    /// Where RDAP is spoken: `domain/NAME` is added to it.
    pub rdap: String,
    /// How to get there.
    pub way: Way,
    /// How long all of it may take.
    pub patience: Duration,
    /// What must be so.
    pub condition: Condition,
}

/// What earlier looks learnt of a registration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// When it was asked for last.
    tried: Option<DateTime<Utc>>,
    /// When something was learnt last.
    learnt: Option<DateTime<Utc>>,
    /// When it ends; none when there is no such registration.
    ends: Option<DateTime<Utc>>,
    /// Why nothing was learnt the last time.
    why: Option<String>,
}

impl Domain {
    /// Looks once: asks, if what is known is too old.
    pub async fn look(&self, looking: &Looking) -> Verdict {
        let now = looking.clock.now();
        let mut known = looking.past().domains.get(&self.name).cloned().unwrap_or_default();
        // A clock that was set back must not keep us from asking.
        let age = |at: Option<DateTime<Utc>>| at.map_or(TimeDelta::MAX, |at| (now - at).abs());
        let is_fresh = age(known.learnt) < GOOD_FOR || age(known.tried) < AGAIN;
        let mut took = None;
        if !is_fresh {
            let begun = Instant::now();
            known.tried = Some(now);
            match self.ask(looking).await {
                Ok(ends) => known = Known { tried: Some(now), learnt: Some(now), ends, why: None },
                Err(fail) => known.why = Some(fail.told),
            }
            took = Some(begun.elapsed());
            looking.past().domains.insert(self.name.clone(), known.clone());
        }
        Verdict { took, ..self.judge(&known, now) }
    }

    fn judge(&self, known: &Known, now: DateTime<Utc>) -> Verdict {
        let is_known = known.learnt.is_some_and(|at| (now - at).abs() < OLDEST);
        if !is_known {
            let why = known.why.as_deref().unwrap_or("nobody has been asked yet");
            let told = format!("nobody can say until when it is registered: {why}");
            return Verdict { state: State::Unknown, ..verdict::failed(Fail::new(Trouble::Domain, told)) };
        }
        let Some(ends) = known.ends else {
            return verdict::failed(Fail::new(Trouble::Domain, "the domain is not registered (any more)"));
        };
        let left = (ends - now).num_seconds();
        let failing = self.condition.failing(&Found { domain: Some(left), ..Found::default() });
        let far = condition::long(Duration::from_secs(left.unsigned_abs()));
        let short = format!("registered until {} ({far})", ends.format("%Y-%m-%d"));
        verdict::of(failing, &short, None, None, None, false)
    }

    /// When the registration ends; none when there is no such domain.
    async fn ask(&self, looking: &Looking) -> Result<Option<DateTime<Utc>>, Fail> {
        let page = Page {
            url: TextOrSecret::Text(format!("{}/domain/{}", self.rdap.trim_end_matches('/'), self.name)),
            method: Method::GET,
            headers: vec![(header::ACCEPT, TextOrSecret::Text("application/rdap+json".to_owned()))],
            bearer: None,
            basic: None,
            body: None,
            follow: true,
            way: self.way.clone(),
            insecure: false,
            ca: None,
            http2: false,
            patience: self.patience,
            read: 1 << 20,
            condition: Condition::all([]),
        };
        let (status, body) = page.get(looking).await?;
        let unsaid = |told: String| Fail::new(Trouble::Domain, told);
        match status {
            200 => {}
            404 => return Ok(None),
            status => return Err(unsaid(format!("the registry answers {status}"))),
        }
        let said: Value = serde_json::from_str(&body)
            .map_err(|error| unsaid(format!("the registry's answer is no JSON: {error}")))?;
        let events = said["events"].as_array().into_iter().flatten();
        let mut ends =
            events.filter(|event| event["eventAction"] == "expiration").filter_map(|event| event["eventDate"].as_str());
        let ends = ends.next().ok_or_else(|| unsaid("the registry does not say when it ends".to_owned()))?;
        let read = DateTime::parse_from_rfc3339(ends).map(|ends| ends.to_utc());
        Ok(Some(read.map_err(|_| unsaid(format!("the registry says that it ends at {}", condition::quoted(ends))))?))
    }
}
