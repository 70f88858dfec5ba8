//! What happens in a run, from its first line to its end, for one who follows it. Live where possible; what was not heard
//! is read from the ledger.
use std::{collections::VecDeque, time::Duration};

use tokio::sync::broadcast::{self, error::RecvError};

use crate::{
    clock::Clock,
    model::{RunId, RunState},
    runner::Event,
    store::Store,
};

/// How often the ledger is looked at where nothing is heard live.
const LOOK: Duration = Duration::from_millis(200);
/// Lines read from the ledger at once.
const LINES: u32 = 1000;

/// A run's events, in order, each once.
#[derive(Debug)]
pub struct Events {
    store: Store,
    clock: Clock,
    run: RunId,
    live: Option<broadcast::Receiver<Event>>,
    waiting: VecDeque<Event>,
    /// The last line that was told.
    shown: u64,
    over: bool,
}

impl Events {
    pub(super) fn new(store: Store, clock: Clock, run: RunId, live: Option<broadcast::Receiver<Event>>) -> Self {
        Self { store, clock, run, live, waiting: VecDeque::new(), shown: 0, over: false }
    }

    /// The next event; none after the run's end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            match &mut self.live {
                Some(live) => match live.recv().await {
                    Ok(event) => self.take(event).await,
                    // Too slow, so some were not heard.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => self.live = None,
                },
                None => self.look().await,
            }
        }
    }

    async fn take(&mut self, event: Event) {
        match &event {
            Event::Line(line) if line.number <= self.shown => {}
            Event::Line(line) => {
                if line.number > self.shown + 1 {
                    self.read_lines(Some(line.number)).await;
                }
                self.shown = line.number;
                self.waiting.push_back(event);
            }
            Event::Finished(..) => {
                self.read_lines(None).await;
                self.over = true;
                self.waiting.push_back(event);
            }
            _ => self.waiting.push_back(event),
        }
    }

    /// Lines that were not heard, up to but not including `until`.
    async fn read_lines(&mut self, until: Option<u64>) {
        while let Ok(lines) = self.store.lines(self.run, self.shown, LINES).await {
            let before = self.shown;
            for line in lines {
                if until.is_none_or(|until| line.number < until) {
                    self.shown = line.number;
                    self.waiting.push_back(Event::Line(line));
                }
            }
            if self.shown == before {
                return;
            }
        }
    }

    /// Without live events: first the run, then its lines, so that those of a run that has ended are all there.
    async fn look(&mut self) {
        let run = self.store.run(self.run).await;
        self.read_lines(None).await;
        match run {
            Ok(Some(run)) => {
                if let RunState::Finished { outcome, .. } = run.state {
                    self.over = true;
                    self.waiting.push_back(Event::Finished(outcome, run.message));
                } else {
                    self.clock.sleep(LOOK).await;
                }
            }
            // The ledger cannot be read, or has lost the run: nothing more can be told.
            _ => self.over = true,
        }
    }
}
