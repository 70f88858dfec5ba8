//! Which happenings start a run: each at once, but one that comes again and again only now and then. Pure.
use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::model::{
    JobName,
    happening::{Because, Happening, Happens},
};

/// A container that does it again and again is heard at least so often.
const LONGEST: Duration = Duration::from_secs(3600);
/// What could not be started because the job was busy is tried again after this.
const BUSY: Duration = Duration::from_secs(5);
/// So many containers are named in one run.
const NAMED: usize = 100;

/// What one job was offered of one container.
type Key = (JobName, String, Happens);

/// What happened of late.
#[derive(Debug, Default)]
pub(super) struct Offers(HashMap<Key, Rest>);

#[derive(Debug)]
struct Rest {
    /// Nothing starts before.
    until: Instant,
    /// How long it is until then.
    length: Duration,
    /// What has happened meanwhile: the newest, and how often.
    held: Option<(Happening, u64)>,
    /// The job was too busy for it the last time.
    is_busy: bool,
}

/// What starts a run: what happened, and how often more since the run before.
pub(super) type Ready = (Happening, u64);

impl Offers {
    /// Something that a job wants to hear of. Returned, it starts a run now; else it is held back until [`due`](Self::due).
    pub(super) fn offer(&mut self, job: &JobName, happening: Happening, rest: Duration, now: Instant) -> Option<Ready> {
        let key = (job.clone(), happening.container.clone(), happening.event);
        match self.0.get_mut(&key) {
            Some(known) if now < known.until || known.held.is_some() => {
                let count = known.held.as_ref().map_or(0, |(_, count)| *count);
                if count == 0 {
                    tracing::info!(%job, container = happening.container, event = happening.event.word(),
                        "it happens again so soon: held back, for one run in a while is enough");
                }
                known.held = Some((happening, count + 1));
                None
            }
            // It was quiet for as long again: what was, is forgotten.
            Some(known) if now < known.until + known.length => {
                known.length = (known.length * 2).min(LONGEST);
                known.until = now + known.length;
                Some((happening, 0))
            }
            _ => {
                self.0.insert(key, Rest { until: now + rest, length: rest, held: None, is_busy: false });
                Some((happening, 0))
            }
        }
    }

    /// What was held back and may start a run now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(JobName, Ready)> {
        self.0.retain(|_, known| known.held.is_some() || now < known.until + known.length);
        let mut due = Vec::new();
        for ((job, ..), known) in self.0.iter_mut().filter(|(_, known)| known.until <= now) {
            if let Some((happening, count)) = known.held.take() {
                known.length = (known.length * 2).min(LONGEST);
                known.until = now + known.length;
                due.push((job.clone(), (happening, count - 1)));
            }
        }
        due
    }

    /// The job was busy: it is held back and tried again soon. Whether that is new.
    pub(super) fn put_back(&mut self, job: &JobName, ready: Vec<Ready>, now: Instant) -> bool {
        let mut is_new = false;
        for (happening, more) in ready {
            let key = (job.clone(), happening.container.clone(), happening.event);
            let known = self.0.entry(key).or_insert(Rest { until: now, length: BUSY, held: None, is_busy: false });
            known.length = (known.length / 2).max(BUSY);
            known.until = now + BUSY;
            let count = known.held.take().map_or(0, |(_, count)| count);
            known.held = Some((happening, more + count + 1));
            is_new |= !std::mem::replace(&mut known.is_busy, true);
        }
        is_new
    }

    /// It has started a run.
    pub(super) fn started(&mut self, job: &JobName, ready: &[Ready]) {
        for (happening, _) in ready {
            if let Some(known) = self.0.get_mut(&(job.clone(), happening.container.clone(), happening.event)) {
                known.is_busy = false;
            }
        }
    }

    /// Forgets jobs that are not there any more.
    pub(super) fn keep_only(&mut self, is_there: impl Fn(&JobName) -> bool) {
        self.0.retain(|(job, ..), _| is_there(job));
    }

    /// When something that was held back is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.0.values().filter(|known| known.held.is_some()).map(|known| known.until).min()
    }
}

/// One run for all that happened at one time.
pub(super) fn because(ready: &[Ready]) -> Option<Because> {
    let (first, rest) = ready.split_first()?;
    let mut others: Vec<String> = rest.iter().map(|(one, _)| one.container.clone()).collect();
    others.sort();
    others.dedup();
    others.retain(|name| *name != first.0.container);
    others.truncate(NAMED);
    let held_back = ready.iter().map(|(_, more)| more).sum();
    Some(Because { happening: first.0.clone(), others, held_back })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn died(container: &str) -> Happening {
        Happening {
            event: Happens::Died,
            container: container.into(),
            id: "id".into(),
            status: Some(1),
            out_of_memory: false,
            late: false,
            at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_container_that_dies_each_second_for_a_day_starts_a_few_runs_and_none_is_lost() {
        let (job, begun) = ("watch".parse::<JobName>().unwrap(), Instant::now());
        let (mut offers, mut runs, mut told) = (Offers::default(), Vec::new(), 0);
        for second in 0..86_400 {
            let now = begun + Duration::from_secs(second);
            let due = offers.due(now).into_iter().map(|(_, ready)| ready);
            let new = offers.offer(&job, died("blog"), Duration::from_secs(60), now);
            for (_, more) in due.chain(new) {
                runs.push(second);
                told += 1 + more;
            }
        }
        assert_eq!(runs[..6], [0, 60, 180, 420, 900, 1860]);
        assert!(runs.len() < 40, "{runs:?}");
        let held = offers.0.values().next().unwrap().held.as_ref().map_or(0, |(_, count)| *count);
        assert_eq!(told + held, 86_400);
        // Another container is another matter, and so is the same one after a quiet while.
        let later = begun + Duration::from_secs(86_400);
        assert!(offers.offer(&job, died("db"), Duration::from_secs(60), later).is_some());
        offers.due(later + LONGEST);
        let quiet = later + 3 * LONGEST;
        assert!(offers.due(quiet).is_empty());
        assert!(offers.offer(&job, died("blog"), Duration::from_secs(60), quiet).is_some());
        assert_eq!(offers.due_at(), None);
    }

    #[test]
    fn what_a_busy_job_could_not_hear_is_told_with_its_next_run() {
        let (job, now) = ("watch".parse::<JobName>().unwrap(), Instant::now());
        let mut offers = Offers::default();
        let ready = offers.offer(&job, died("blog"), Duration::from_secs(60), now).unwrap();
        assert!(offers.put_back(&job, vec![ready], now));
        assert!(offers.offer(&job, died("blog"), Duration::from_secs(60), now).is_none());
        assert!(offers.due(now + Duration::from_secs(4)).is_empty());
        let due = offers.due(now + Duration::from_secs(5));
        assert_eq!(due.iter().map(|(_, (_, more))| *more).collect::<Vec<_>>(), [1]);
        let ready: Vec<Ready> = due.into_iter().map(|(_, ready)| ready).collect();
        assert!(!offers.put_back(&job, ready, now), "that is said once");
    }

    #[test]
    fn many_that_died_together_are_one_run() {
        let ready: Vec<Ready> = ["b", "a", "c", "b"].into_iter().map(|name| (died(name), 1)).collect();
        let because = because(&ready).unwrap();
        assert_eq!((because.happening.container.as_str(), because.held_back), ("b", 4));
        assert_eq!(because.others, ["a", "c"]);
    }
}
