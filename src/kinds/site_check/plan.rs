//! From keys to checks: done once, when the job is read; what is wrong with the values shows here.
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use super::{demands, keys::SiteKeys, making, parents};
use crate::{
    check::{
        CHECKS, Check, CheckEntry,
        condition::{Condition, Wrong},
        container::Contained,
        guard::Network,
        host_and_port,
        reach::{Family, Way},
    },
    config::{
        mistake::Problem,
        secret::{SecretSource, TextOrSecret},
        units::Span,
    },
    docker,
    model::watch::Rules,
};

/// A look may take so long, without a word.
const PATIENCE: Span = Span::seconds(10);
/// And never longer.
const MOST_PATIENCE: Duration = Duration::from_secs(300);
/// A longer name does not fit into a message.
const LONGEST_NAME: usize = 100;
/// A look that fails once may be the line's fault.
const FAILURES: u32 = 2;

/// A site that is looked at.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) label: String,
    pub(super) check: Check,
    pub(super) rules: Rules,
}

/// What a job's keys come to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) sites: Vec<Planned>,
    pub(super) secrets: Vec<SecretSource>,
    pub(super) problems: Vec<Problem>,
}

impl Plan {
    pub(super) fn of(mut keys: SiteKeys) -> Self {
        let sites = std::mem::take(&mut keys.site);
        let mut making = Making { plan: Self::default(), known: HashMap::new(), prefix: String::new() };
        let mut labels: Vec<(String, String)> = Vec::new();
        let mut above: Vec<(String, usize, String)> = Vec::new();
        if sites.is_empty() {
            labels.extend(making.site(keys, &SiteKeys::default()).map(|label| (String::new(), label)));
        } else {
            making.common(&keys);
            for (number, site) in sites.into_iter().enumerate() {
                making.prefix = format!("site[{number}].");
                if !site.site.is_empty() {
                    making.problem("site", "sites have no sites within them", "write `[[site]]` for each of them");
                }
                let label = making.site(site, &keys);
                labels.extend(label.map(|label| (format!("site[{number}]"), label)));
            }
        }
        let mut plan = making.plan;
        let mut seen = HashSet::new();
        for (key, label) in &labels {
            if !seen.insert(label.as_str()) {
                let problem = Problem::new(key, format!("a site before it is named `{label}` as well"));
                plan.problems.push(problem.hint("give one of them another: `name = \"…\"`"));
            }
        }
        for (index, ((key, label), site)) in labels.iter().zip(&mut plan.sites).enumerate() {
            // What all have in common is not meant for the one that is named there.
            if site.rules.parent.as_ref() == Some(label) && !key.is_empty() {
                site.rules.parent = None;
            }
            if let Some(parent) = site.rules.parent.clone() {
                above.push((key.clone(), index, parent));
            }
        }
        if plan.problems.is_empty() {
            let known = parents::parents(&plan.sites);
            let wrong = above.iter().filter_map(|(key, index, parent)| {
                let key = if key.is_empty() { "parent".to_owned() } else { format!("{key}.parent") };
                let (message, hint) = parents::wrong(&known, &plan.sites[*index].label, parent)?;
                Some(Problem::new(key, message).hint(hint))
            });
            plan.problems.extend(wrong.collect::<Vec<_>>());
        }
        // Those on whom others depend are looked at first.
        let depths = parents::depths(&plan.sites);
        let mut sites: Vec<(usize, Planned)> = depths.into_iter().zip(plan.sites).collect();
        sites.sort_by_key(|(depth, _)| *depth);
        plan.sites = sites.into_iter().map(|(_, site)| site).collect();
        plan
    }
}

/// A plan that is being made.
pub(super) struct Making {
    plan: Plan,
    /// Conditions that were read before, by check and text: many sites are asked for the same.
    known: HashMap<(&'static str, String), Condition>,
    /// Of the site that is read: `site[3].`.
    prefix: String,
}

impl Making {
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        let key = format!("{}{key}", self.prefix);
        self.plan.problems.push(Problem::new(key.trim_end_matches('.'), message).hint(hint));
    }

    /// What stands above the sites.
    fn common(&mut self, keys: &SiteKeys) {
        for (key, is_set) in [
            ("name", keys.name.is_some()),
            ("url", keys.url.is_some()),
            ("tcp", keys.tcp.is_some()),
            ("dns", keys.dns.is_some()),
            ("ping", keys.ping.is_some()),
            ("tls", keys.tls.is_some()),
            ("domain", keys.domain.is_some()),
            ("bearer", keys.bearer.is_some()),
            ("basic", keys.basic.is_some()),
            ("body", keys.body.is_some()),
            ("send", keys.send.is_some()),
            ("resolve", keys.resolve.is_some()),
        ] {
            if is_set {
                let message = format!("`{key}` is of one site, and this job has several");
                self.problem(key, message, "write it below the `[[site]]` that it is for");
            }
        }
    }

    /// One site; its label, unless it is not known what it is.
    fn site(&mut self, own: SiteKeys, all: &SiteKeys) -> Option<String> {
        let entry = self.which(&own)?;
        for (key, checks) in own.set() {
            if !checks.contains(&entry.key) {
                let are: Vec<String> = checks.iter().map(|check| format!("`{check}`")).collect();
                let message =
                    format!("`{key}` is for sites with {}, and this one has `{}`", are.join(" or "), entry.key);
                self.problem(key, message, "remove it");
            }
        }
        if !self.prefix.is_empty() && own.spread.is_some() {
            self.problem("spread", "`spread` is of the job as a whole", "write it above the first `[[site]]`");
        }
        let before = self.plan.problems.len();
        let keys = own.or(all, entry.key);
        let patience = self.patience(&keys);
        let made = match entry.key {
            "url" => self.page(&keys, entry, patience),
            "tcp" => self.tcp(&keys, entry, patience),
            "dns" => self.dns(&keys, entry, patience),
            "ping" => self.ping(&keys, entry, patience),
            "tls" => self.certificate(&keys, entry, patience),
            "domain" => self.domain(&keys, entry, patience),
            _ => {
                let name = keys.container.clone().unwrap_or_default();
                Some((Check::Container(Contained { name: name.clone() }), name, None))
            }
        };
        if let Some(name) = keys.container.as_deref().filter(|name| !docker::is_name(name)) {
            let message = format!("`{name}` cannot be a container's name");
            self.problem("container", message, "`docker ps` shows their names in its last column");
        }
        let rules = self.rules(&keys);
        let (check, default, host) = made?;
        let label = keys.name.clone().unwrap_or(default);
        let label = self.label(label, keys.name.is_some())?;
        if self.plan.problems.len() == before {
            let family = keys.family.unwrap_or_default();
            let check = if family == Family::Both { making::over_both(check) } else { check };
            self.plan.sites.push(Planned { label: label.clone(), check, rules: Rules { host, ..rules } });
            return Some(label);
        }
        None
    }

    /// Which check it is, by the one key that says so.
    fn which(&mut self, own: &SiteKeys) -> Option<&'static CheckEntry> {
        let has = |key: &str| match key {
            "url" => own.url.is_some(),
            "tcp" => own.tcp.is_some(),
            "dns" => own.dns.is_some(),
            "ping" => own.ping.is_some(),
            "tls" => own.tls.is_some(),
            "domain" => own.domain.is_some(),
            _ => own.container.is_some(),
        };
        let mut all: Vec<&CheckEntry> = CHECKS.iter().filter(|entry| has(entry.key)).collect();
        // A container is looked at only when nothing else of it is.
        if all.len() > 1 {
            all.retain(|entry| entry.key != "container");
        }
        let examples: Vec<String> = CHECKS.iter().map(|entry| format!("`{}`", entry.example)).collect();
        match all[..] {
            [only] => return Some(only),
            [] => {
                let hint = format!("write one of {}", examples.join(", "));
                self.problem("", "this site does not say what is looked at", hint);
            }
            [one, other, ..] => {
                let hint = "make two sites of it, each with a `[[site]]` of its own";
                self.problem(other.key, format!("`{}` and `{}` are two things to look at", one.key, other.key), hint);
            }
        }
        None
    }

    fn label(&mut self, label: String, is_given: bool) -> Option<String> {
        let fits =
            !label.trim().is_empty() && label.chars().count() <= LONGEST_NAME && !label.chars().any(char::is_control);
        if fits {
            return Some(label);
        }
        let message = format!("a name has 1 to {LONGEST_NAME} letters, and no line breaks");
        self.problem(if is_given { "name" } else { "" }, message, "such as `name = \"blog\"`");
        None
    }

    fn patience(&mut self, keys: &SiteKeys) -> Duration {
        let patience = keys.patience.unwrap_or(PATIENCE).0;
        if patience.is_zero() || patience > MOST_PATIENCE {
            let message = format!("a look may take from 1ms to {}", Span(MOST_PATIENCE));
            self.problem("patience", message, format!("it is {PATIENCE} when absent"));
        }
        patience
    }

    fn rules(&mut self, keys: &SiteKeys) -> Rules {
        for (key, count) in [("failures", keys.failures), ("successes", keys.successes)] {
            if count.is_some_and(|count| count == 0 || count > 1000) {
                self.problem(key, "this goes from 1 to 1000", "1: at once");
            }
        }
        if keys.remind.is_some_and(|remind| remind.0 < Duration::from_secs(60)) {
            self.problem(
                "remind",
                "a reminder comes once a minute at most",
                "such as `remind = \"6h\"`; without it there are none",
            );
        }
        Rules {
            failures: keys.failures.unwrap_or(FAILURES),
            successes: keys.successes.unwrap_or(1),
            remind: keys.remind.map(|remind| remind.0),
            parent: keys.parent.clone(),
            container: keys.container.clone(),
            host: None,
        }
    }

    pub(super) fn way(&mut self, keys: &SiteKeys) -> Way {
        let mut allow = Vec::new();
        for (number, text) in keys.allow.iter().flatten().enumerate() {
            match text.parse::<Network>() {
                Ok(network) => allow.push(network),
                Err(why) => {
                    let (wrong, mend) = why.split_once(": ").unwrap_or((&why, ""));
                    self.problem(&format!("allow[{number}]"), wrong, mend);
                }
            }
        }
        if let Some(resolve) = &keys.resolve
            && host_and_port(&format!("{resolve}:1")).is_none()
            && resolve.parse::<IpAddr>().is_err()
        {
            let message = format!("`{resolve}` is neither an address nor a host's name");
            self.problem("resolve", message, "such as `resolve = \"192.168.1.10\"`; the port stays that of the site");
        }
        Way { family: keys.family.unwrap_or_default(), resolve: keys.resolve.clone(), allow }
    }

    /// All conditions of a site: those of the keys, and `expect`.
    pub(super) fn condition(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, more: &[String]) -> Condition {
        let mut parts: Vec<Condition> = Vec::new();
        if let Some(text) = &keys.expect {
            match self.read(entry, text) {
                Ok(condition) => parts.push(condition),
                Err(Wrong { at, message, hint }) => {
                    let problem = Problem::new(format!("{}expect", self.prefix), message).within(at);
                    self.plan.problems.push(Problem { hint, ..problem });
                }
            }
        }
        let is_about_status = parts.iter().any(Condition::is_about_status);
        for (key, text) in demands::wanted(keys) {
            self.part(entry, &key, &text, &mut parts);
        }
        if entry.key == "url" && !is_about_status {
            let text = demands::status(keys);
            self.part(entry, "status", &text, &mut parts);
        }
        for text in more {
            self.part(entry, entry.key, text, &mut parts);
        }
        if let [only] = &parts[..] { only.clone() } else { Condition::all(parts) }
    }

    fn part(&mut self, entry: &'static CheckEntry, key: &str, text: &str, parts: &mut Vec<Condition>) {
        match self.read(entry, text) {
            Ok(condition) => parts.push(condition),
            Err(wrong) => {
                let problem = Problem::new(format!("{}{key}", self.prefix), wrong.message);
                self.plan.problems.push(problem);
            }
        }
    }

    fn read(&mut self, entry: &'static CheckEntry, text: &str) -> Result<Condition, Wrong> {
        if let Some(known) = self.known.get(&(entry.key, text.to_owned())) {
            return Ok(known.clone());
        }
        let condition = Condition::parse(text, &entry.subject)?;
        self.known.insert((entry.key, text.to_owned()), condition.clone());
        Ok(condition)
    }

    pub(super) fn secret(&mut self, values: impl IntoIterator<Item = Option<TextOrSecret>>) {
        let sources = values.into_iter().flatten().filter_map(|value| value.secret().cloned());
        self.plan.secrets.extend(sources);
    }
}

/// A check, what it is called without a word, and the host that it looks at.
pub(super) type Made = (Check, String, Option<String>);
