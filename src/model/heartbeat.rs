//! What others have told us of themselves by calling in: values, no IO.
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Bytes of what was sent along that are kept.
const KEPT: usize = 10_000;
/// Bytes of an identifier of a run.
const LONGEST_RUN: usize = 64;

/// What a call says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// It is well, or has ended well.
    Success,
    /// It begins.
    Start,
    /// It failed.
    Fail,
    /// It has something to say, and no more.
    Log,
    /// It ended with this status; 0 is well.
    Exit(u8),
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// When.
    pub at: DateTime<Utc>,
    /// What it says.
    pub signal: Signal,
    /// Which of the caller's runs it is about, in the caller's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The beginning of what was sent along.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
}

/// All that matters of the calls so far. Kept as a fact of the job that waits for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heard {
    /// Since when somebody waits.
    pub since: Option<DateTime<Utc>>,
    /// The last one that said that all is well.
    pub success: Option<Call>,
    /// The last one that said that it failed.
    pub failure: Option<Call>,
    /// The last one that said that it begins, while that run has not ended.
    pub begun: Option<Call>,
    /// Milliseconds that the last run took whose beginning was told.
    pub took: Option<u64>,
    /// The last one that only had something to say.
    pub note: Option<Call>,
    /// How many there were.
    pub calls: u64,
}

/// The fact's key.
pub const HEARD: &str = "heard";

impl Signal {
    /// Whether it says that all is well.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Success | Self::Exit(0))
    }
}

impl Call {
    /// A call, shortened to what is kept.
    #[must_use]
    pub fn new(at: DateTime<Utc>, signal: Signal, run: Option<&str>, body: &[u8]) -> Self {
        let said = String::from_utf8_lossy(&body[..body.len().min(KEPT)]).into_owned();
        let run = run.map(|run| run[..run.floor_char_boundary(LONGEST_RUN)].to_owned());
        Self { at, signal, run, said }
    }
}

impl Heard {
    /// One call more.
    pub fn hear(&mut self, call: Call) {
        self.calls += 1;
        self.since.get_or_insert(call.at);
        match call.signal {
            Signal::Log => self.note = Some(call),
            Signal::Start => self.begun = Some(call),
            signal => {
                // Of two runs at once, the end of the one says nothing of the other.
                let of_it = |begun: &mut Call| begun.run.is_none() || call.run.is_none() || begun.run == call.run;
                if let Some(begun) = self.begun.take_if(of_it) {
                    self.took = u64::try_from((call.at - begun.at).num_milliseconds()).ok();
                }
                *(if signal.is_success() { &mut self.success } else { &mut self.failure }) = Some(call);
            }
        }
    }
}
