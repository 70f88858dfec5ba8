//! The whole scheduler loop with its ledger on the disk, around the days on which a zone sets its clock: whatever the clock,
//! a crash, a pause and the files do, each slot gets one row, none is lost and none runs twice.
use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    path::PathBuf,
    sync::Mutex,
};

use chrono::{DateTime, Offset as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;
use rusuban::{
    model::{JobName, SlotEnd},
    schedule::Schedule,
    scheduler::Scheduler,
    store::SlotRow,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::schedule::oracle::{PATTERNS, Year, ZONES};

type Moment = DateTime<Utc>;

/// How many jobs there are.
const JOBS: usize = 3;
/// No start is put off longer.
const JITTER: u64 = 600;

/// What happens while the loop is at work.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many milliseconds go by.
    Wait(u64),
    /// The clock is set by so many seconds.
    Clock(i64),
    Pause(usize),
    Resume(usize),
    /// The job's file has another jitter and `missed`.
    Policy(usize, u64, usize),
    /// The job's file has another schedule.
    Line(usize, usize),
    /// The job's file is taken away, or is there again.
    Remove(usize),
    Add(usize),
}

/// A process, from its start to its end.
#[derive(Clone, Debug)]
struct Life {
    /// The machine was off so long before.
    away: i64,
    /// Files that changed meanwhile: the job, and the line.
    changed: Option<(usize, usize)>,
    steps: Vec<Step>,
    /// It dies, so many turns of the runtime later; else it is asked to stop.
    dies: Option<u8>,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3000_u64).prop_map(Step::Wait),
        6 => (1..120_i64).prop_map(Step::Clock),
        6 => (1..7200_i64).prop_map(Step::Clock),
        2 => (7200..200_000_i64).prop_map(Step::Clock),
        3 => (-40_000..0_i64).prop_map(Step::Clock),
        1 => (0..JOBS).prop_map(Step::Pause),
        2 => (0..JOBS).prop_map(Step::Resume),
        1 => (0..JOBS, prop_oneof![Just(0), Just(30), Just(JITTER)], 0..3_usize)
            .prop_map(|(job, jitter, missed)| Step::Policy(job, jitter, missed)),
        1 => (0..JOBS, 0..PATTERNS.len()).prop_map(|(job, line)| Step::Line(job, line)),
        1 => (1..JOBS).prop_map(Step::Remove),
        2 => (1..JOBS).prop_map(Step::Add),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    let changed = proptest::option::of((0..JOBS, 0..PATTERNS.len()));
    let dies = proptest::option::weighted(0.7, 0..40_u8);
    (-3600..100_000_i64, changed, proptest::collection::vec(step(), 5..25), dies)
        .prop_map(|(away, changed, steps, dies)| Life { away, changed, steps, dies })
}

/// For a while a job had one schedule. Where it began and ended is known within bounds: the loop goes on while a file changes.
#[derive(Debug)]
struct Epoch {
    line: usize,
    after: (Moment, Moment),
    until: Option<(Moment, Moment)>,
}

/// What the test knows of a job.
struct Known {
    job: Job,
    line: usize,
    is_there: bool,
    paused: bool,
    epochs: Vec<Epoch>,
}

struct World {
    ledger: PathBuf,
    services: Arc<Services>,
    zone: Tz,
    year: Year,
    slots: HashMap<usize, Vec<Moment>>,
    jobs: Vec<Known>,
    /// How far the clock has been.
    furthest: Moment,
}

impl World {
    fn slots(&mut self, line: usize) -> &[Moment] {
        let year = &self.year;
        self.slots.entry(line).or_insert_with(|| year.slots(&PATTERNS[line]))
    }

    fn set_line(&mut self, index: usize, line: usize) {
        self.slots(line);
        let zone = self.zone;
        let known = &mut self.jobs[index];
        known.line = line;
        known.job.schedule = Some(Schedule::parse(PATTERNS[line].line, zone, &known.job.name).unwrap());
        known.rewrite();
    }

    fn files(&self) -> Vec<Arc<Job>> {
        self.jobs.iter().filter(|known| known.is_there).map(|known| Arc::new(known.job.clone())).collect()
    }

    /// Lives one life that begins at `start`; says what time it is at its end.
    fn live(&mut self, start: Moment, life: &Life, last: bool) -> Moment {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        // Dropping the runtime drops the process's tasks wherever they are.
        runtime.block_on(async {
            let mut process = held(Process::start(self, start)).await;
            for step in &life.steps {
                process.take(*step).await;
                process.keeps_up().await;
            }
            if last {
                for index in 0..JOBS {
                    process.take(Step::Resume(index)).await;
                }
                process.keeps_up().await;
            }
            match life.dies {
                Some(turns) if !last => {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                    process.clock.now()
                }
                _ => process.stop().await,
            }
        })
    }
}

impl Known {
    fn rewrite(&mut self) {
        self.job.source = format!("{} {:?}", self.line, self.job.policies).as_str().into();
    }

    fn has(&self, line: usize) -> bool {
        self.epochs.last().is_some_and(|epoch| epoch.line == line && epoch.until.is_none())
    }

    fn begin(&mut self, after: (Moment, Moment)) {
        self.epochs.push(Epoch { line: self.line, after, until: None });
    }

    fn end(&mut self, until: (Moment, Moment)) {
        if let Some(epoch) = self.epochs.last_mut() {
            epoch.until.get_or_insert(until);
        }
    }
}

/// Waits for something that happens in real time, such as a write to the disk: paused time stands still meanwhile, and would
/// fly otherwise.
async fn held<T>(what: impl Future<Output = T>) -> T {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    // Paused time waits for threads that block.
    let hold = tokio::task::spawn_blocking(move || wait.recv());
    let result = what.await;
    drop(done);
    let _ = hold.await;
    result
}

/// A process at work.
struct Process<'a> {
    world: &'a mut World,
    clock: Clock,
    store: Store,
    runner: Arc<Runner>,
    scheduler: Arc<Scheduler>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl<'a> Process<'a> {
    async fn start(world: &'a mut World, start: Moment) -> Self {
        let clock = Clock::simulated(start);
        let store = Store::open(&world.ledger, clock.clone()).await.unwrap();
        let files = world.files();
        let by_name = files.iter().map(|job| (job.name.clone(), Arc::clone(job))).collect();
        rusuban::runner::recover(&store, &clock, &world.services, &by_name).await.unwrap();
        let runner = Runner::new(store.clone(), clock.clone(), Arc::clone(&world.services), Limits::default());
        let scheduler = Arc::new(Scheduler::new(store.clone(), Arc::clone(&runner), clock.clone()));
        let before = clock.now();
        let cursors = store.cursors().await.unwrap();
        scheduler.reload(files).await.unwrap();
        for known in world.jobs.iter_mut().filter(|known| known.is_there) {
            let cursor = cursors.get(&known.job.name).and_then(|cursor| cursor.at);
            if known.has(known.line) {
                assert!(cursor.is_some(), "the ledger has forgotten {:?}", known.job.name);
                continue;
            }
            // A job that the ledger knows goes on where it was; another has its first slot after now.
            let after = cursor.map_or((before, clock.now()), |cursor| (cursor, cursor));
            known.end(after);
            known.begin(after);
        }
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (scheduler, stop) = (Arc::clone(&scheduler), stop.clone());
            async move { scheduler.run(stop).await }
        });
        Self { world, clock, store, runner, scheduler, stop, task }
    }

    async fn cursor(&self, index: usize) -> Option<Moment> {
        held(self.store.cursors()).await.unwrap().get(&self.world.jobs[index].job.name).and_then(|cursor| cursor.at)
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Wait(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
            Step::Clock(by) => {
                // A clock that is a day off and more is another test's.
                let least = (self.world.furthest - self.clock.now()).num_seconds() - 80_000;
                self.clock.step(TimeDelta::seconds(by.max(least.min(0))));
            }
            Step::Pause(index) => {
                self.world.jobs[index].paused = true;
                held(self.scheduler.pause(&self.world.jobs[index].job.name)).await.unwrap();
            }
            Step::Resume(index) => {
                self.world.jobs[index].paused = false;
                held(self.scheduler.resume(&self.world.jobs[index].job.name)).await.unwrap();
            }
            Step::Policy(index, jitter, missed) => {
                let policies = &mut self.world.jobs[index].job.policies;
                policies.jitter = Span::seconds(jitter);
                policies.missed =
                    [MissedPolicy::Latest, MissedPolicy::Skip, MissedPolicy::All(NonZeroU32::new(5).unwrap())][missed];
                policies.overlap = [Overlap::Skip, Overlap::Queue, Overlap::Allow][missed];
                self.world.jobs[index].rewrite();
                self.reload(index, false).await;
            }
            // What is new begins now; where now is behind what was settled, that is another test's.
            Step::Line(..) | Step::Add(_) if self.clock.now() < self.world.furthest => {}
            Step::Line(index, line) => {
                let anew = self.world.jobs[index].line != line;
                self.world.set_line(index, line);
                self.reload(index, anew).await;
            }
            Step::Remove(index) => {
                let is_there = std::mem::replace(&mut self.world.jobs[index].is_there, false);
                if is_there {
                    self.reload(index, true).await;
                }
            }
            Step::Add(index) => {
                let was_there = std::mem::replace(&mut self.world.jobs[index].is_there, true);
                self.reload(index, !was_there).await;
            }
        }
        self.world.furthest = self.world.furthest.max(self.clock.now());
    }

    /// Reads the files. `anew`: the schedule of this job ends here, or another begins.
    async fn reload(&mut self, index: usize, anew: bool) {
        let (settled, before) = (self.cursor(index).await, self.clock.now());
        held(self.scheduler.reload(self.world.files())).await.unwrap();
        let (anchor, after) = (self.cursor(index).await, self.clock.now());
        if anew {
            let known = &mut self.world.jobs[index];
            // Where the clock was set back, more was settled than has come.
            known.end((settled.unwrap_or(before), after.max(self.world.furthest)));
            if known.is_there {
                known.begin((before, anchor.unwrap_or(after)));
            }
        }
    }

    /// Waits until the loop has settled all that has come by now: it takes a moment, and not for ever.
    async fn keeps_up(&mut self) {
        let now = self.clock.now() - TimeDelta::seconds(i64::try_from(JITTER).unwrap());
        let mut behind = None;
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            let cursors = self.store.cursors().await.unwrap();
            behind = self.world.jobs.iter().filter(|known| known.is_there && !known.paused).find_map(|known| {
                let cursor = cursors[&known.job.name].at?.max(known.epochs.last()?.after.1);
                let slots = &self.world.slots[&known.line];
                let next = slots.get(slots.partition_point(|due| *due <= cursor))?;
                (*next <= now).then(|| format!("{:?} has not settled {next} at {now}", known.job.name))
            });
            if behind.is_none() {
                break;
            }
            // The ledger's thread works in real time.
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(behind, None);
        self.world.furthest = self.world.furthest.max(self.clock.now());
    }

    async fn stop(self) -> Moment {
        self.stop.cancel();
        self.task.await.unwrap();
        self.runner.shutdown().await;
        self.clock.now()
    }
}

/// What the ledger says at the end, against what the clock on the wall says.
fn judge(world: &World, started: &HashMap<RunId, u32>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::open(&world.ledger, Clock::system())).unwrap();
    for known in &world.jobs {
        let name: &JobName = &known.job.name;
        let rows: Vec<SlotRow> = runtime.block_on(store.slots(name, u32::MAX)).unwrap();
        let cursor = runtime.block_on(store.cursors()).unwrap()[name].at.unwrap();
        let mut ends: BTreeMap<Moment, &SlotEnd> = BTreeMap::new();
        for row in &rows {
            let covered = known.epochs.iter().find_map(|epoch| {
                let end = epoch.until.map_or(world.furthest, |until| until.1);
                let slots = &world.slots[&epoch.line];
                let from = slots.partition_point(|due| *due < row.due);
                let to = slots.partition_point(|due| *due <= row.last);
                let fits = epoch.after.0 < row.due && row.last <= end && slots.get(from) == Some(&row.due);
                (fits && (to - from) as u64 == row.count).then(|| &slots[from..to])
            });
            let covered = covered.unwrap_or_else(|| panic!("{name:?} never had {row:?}: {:?}", known.epochs));
            for due in covered {
                assert!(ends.insert(*due, &row.end).is_none(), "{name:?}: {due} has two rows");
            }
        }
        for epoch in &known.epochs {
            let slots = &world.slots[&epoch.line];
            let from = slots.partition_point(|due| *due <= epoch.after.1);
            let to = slots.partition_point(|due| *due <= epoch.until.map_or(cursor, |until| until.0));
            for due in &slots[from..to.max(from)] {
                assert!(ends.contains_key(due), "{name:?}: {due} is lost: {epoch:?}");
            }
        }
        for (due, end) in &ends {
            let SlotEnd::Run(id) = end else { continue };
            let run = runtime.block_on(store.run(*id)).unwrap().unwrap();
            assert!(matches!(run.trigger, Trigger::Schedule(of) | Trigger::CatchUp(of) if of == *due), "{run:?}");
            let times = started.get(id).copied().unwrap_or_default();
            match outcome(&run) {
                Outcome::Succeeded => assert_eq!(times, 1, "{run:?}"),
                _ => assert!(times <= 1, "{run:?} was started {times} times"),
            }
        }
    }
}

/// A moment shortly before the zone sets its clock, or any.
fn begin(zone: Tz, year: &Year, chance: usize) -> Moment {
    let offset = |at: &Moment| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    let hours: Vec<Moment> = (48..340 * 24).map(|hour| year.begin() + TimeDelta::hours(hour)).collect();
    let changes: Vec<Moment> =
        hours.windows(2).filter(|pair| offset(&pair[0]) != offset(&pair[1])).map(|pair| pair[0]).collect();
    let change = if changes.is_empty() { hours[chance % hours.len()] } else { changes[chance % changes.len()] };
    change - TimeDelta::minutes(i64::try_from(chance % 1800).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 33, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_each_slot_gets_one_row_and_none_runs_twice(
        zone in 0..ZONES.len(),
        chance in 0..100_000_usize,
        lines in proptest::collection::vec(0..PATTERNS.len(), JOBS),
        lives in proptest::collection::vec(life(), 3..6),
    ) {
        let house = House::new();
        let started: Arc<Mutex<HashMap<RunId, u32>>> = Arc::default();
        let kind = Does::kind({
            let started = Arc::clone(&started);
            move |cx: Cx| {
                *started.lock().unwrap().entry(cx.run).or_insert(0) += 1;
                let long = Duration::from_millis(u64::try_from(cx.run.0 % 4).unwrap() * 700);
                async move {
                    tokio::time::sleep(long).await;
                    Ok("done".into())
                }
            }
        });
        let (zone, number) = ZONES[zone];
        let year = Year::of(zone, number);
        let mut now = begin(zone, &year, chance);
        let jobs = (0..JOBS).map(|index| Known {
            job: job(&format!("job-{index}"), Arc::clone(&kind)),
            line: 0,
            is_there: true,
            paused: false,
            epochs: Vec::new(),
        });
        let mut world = World {
            ledger: house.home().join("ledger"),
            services: Arc::clone(&house.services),
            zone,
            year,
            slots: HashMap::new(),
            jobs: jobs.collect(),
            furthest: now,
        };
        for (index, line) in lines.into_iter().enumerate() {
            world.set_line(index, line);
        }
        for (number, life) in lives.iter().enumerate() {
            if number > 0 {
                now += TimeDelta::seconds(life.away.max((world.furthest - now).num_seconds() - 80_000));
                world.furthest = world.furthest.max(now);
                if let Some((index, line)) = life.changed {
                    world.set_line(index, line);
                }
            }
            now = world.live(now, life, number + 1 == lives.len());
            world.furthest = world.furthest.max(now);
        }
        let started = started.lock().unwrap().clone();
        judge(&world, &started);
    }
}
