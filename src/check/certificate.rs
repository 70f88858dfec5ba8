//! The certificate of whatever speaks TLS at a port.
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Looking,
    condition::{self, Condition, Failing, Found, Subject},
    reach::{self, Fail, Phase, Way},
    tls::{Shown, Within},
    verdict,
};
use crate::model::watch::{Trouble, Verdict};

/// What a condition about a certificate can ask.
pub const SUBJECT: Subject = Subject { name: "a certificate", words: &["certificate", "time", "address"] };

/// A port where TLS is spoken from the first byte on.
#[derive(Clone, Debug)]
pub struct CertificateOf {
    /// The host, whose name the certificate must have.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How to get there.
    pub way: Way,
    /// Authorities that are trusted beside the machine's: a file of PEM.
    pub ca: Option<PathBuf>,
    /// How long all of it may take.
    pub patience: Duration,
    /// What must be so.
    pub condition: Condition,
}

impl CertificateOf {
    /// Looks once, over the family that its way names.
    pub async fn look(&self, looking: &Looking) -> Verdict {
        let (begun, phase) = (Instant::now(), Phase::default());
        let reached = tokio::time::timeout(self.patience, async {
            let addresses = reach::addresses(looking, self.way.host(&self.host), self.port, &self.way, false).await?;
            phase.set(Phase::KNOCK);
            let stream = reach::connect(&addresses).await?;
            let address = stream.peer_addr().map_err(|error| reach::unreachable(&error))?.ip();
            phase.set(Phase::TLS);
            let ca = looking.authorities(self.ca.as_deref());
            let (_, shown) =
                looking.tls.begin(stream, &self.host, Within::Anything, &looking.clock, ca.as_deref()).await?;
            Ok::<_, Fail>((address, shown))
        });
        let (address, shown) = match reached.await {
            Ok(Ok(reached)) => reached,
            Ok(Err(fail)) => return verdict::failed(fail),
            Err(_) => return verdict::failed(phase.late(self.patience)),
        };
        let (took, now) = (begun.elapsed(), looking.clock.now());
        let left = shown.left(now);
        let found = Found { time: took, certificate: Some(left), address: Some(address), ..Found::default() };
        let mut failing = self.condition.failing(&found);
        failing.extend(worry(&shown, now, self.condition.is_about_certificate()));
        let short = format!("{}, until {}", words(left), shown.certificate.ends.format("%Y-%m-%d"));
        let verdict = verdict::of(failing, &short, None, Some(took), Some(shown.certificate), false);
        Verdict { address: Some(address), ..verdict }
    }
}

/// What is wrong with a certificate, beside what a condition says of how long it must last.
pub(super) fn worry(shown: &Shown, now: DateTime<Utc>, is_asked: bool) -> Option<Failing> {
    let fail = |told: String| Some(Failing { trouble: Trouble::Certificate, told });
    if let Some(why) = &shown.certificate.distrust {
        return fail(format!("the certificate {why}"));
    }
    let left = shown.left(now);
    let soon = TimeDelta::seconds(left) <= shown.notice() && !is_asked;
    if soon { fail(condition::ending("the certificate", left.saturating_mul(1000))) } else { None }
}

/// `certificate 61 days`.
pub(super) fn words(left: i64) -> String {
    let far = condition::long(Duration::from_secs(left.unsigned_abs()));
    if left < 0 { format!("certificate ended {far} ago") } else { format!("certificate {far}") }
}
