//! What a picture shows, as plain data that any backend can fill and any file can hold.
//!
//! Times are nanoseconds since the start of the run. Everything that happened has an id, the same
//! in every part: an arrow, a mark, a change of a log, a sentence about them. `causes` links ids;
//! what is behind the witness there is its causal past.

mod log;
mod time;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use log::{LogChange, LogChangeKind, LogStrip, NULL, UNKNOWN};
pub(super) use time::nearest;
pub use time::{seconds, span};

/// The id of something that happened.
pub type EventId = u64;

/// A picture of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagram {
    /// What the run was, such as `order-export, seed 17`.
    pub title: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Who took part, from left to right.
    pub lanes: Vec<Lane>,
    /// Messages.
    pub arrows: Vec<Arrow>,
    /// What happened at one place.
    pub marks: Vec<Mark>,
    /// What was so for a while.
    pub bands: Vec<Band>,
    /// What became of logs.
    pub logs: Vec<LogStrip>,
    /// Committed offsets.
    pub commits: Vec<Commit>,
    /// Transactions.
    pub transactions: Vec<Transaction>,
    /// The two to six events that prove the verdict.
    pub witness: Vec<EventId>,
    /// What happened, in sentences.
    pub narrative: Vec<Sentence>,
    /// What was done to the run: faults, and the work if it was planned.
    pub plan: Vec<Step>,
    /// What each event came of.
    pub causes: BTreeMap<EventId, Vec<EventId>>,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether something is wrong.
    pub is_violation: bool,
    /// The verdict in a word or two: `violated`, `held`, `permitted and explained`.
    pub word: String,
    /// The guarantee that it is about, such as `B2 lost write, finally`.
    pub guarantee: String,
    /// What is wrong, as a sentence.
    pub sentence: String,
    /// Why that could happen, as a sentence.
    pub reason: String,
    /// The command that runs it again.
    pub replay: String,
    /// Facts about the run: name and value, such as `seed` and `17`.
    pub facts: Vec<(String, String)>,
}

/// Somebody who took part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// The name.
    pub name: String,
    /// What it is.
    pub kind: LaneKind,
}

/// What a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LaneKind {
    /// A process of the application, with its clients.
    Process,
    /// A broker.
    Broker,
    /// The controller.
    Controller,
}

impl LaneKind {
    /// The kind in a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Broker => "broker",
            Self::Controller => "controller",
        }
    }
}

/// The index of a lane.
pub type LaneIndex = usize;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrow {
    /// That it was sent.
    pub id: EventId,
    /// That it arrived, or found nobody.
    pub end: Option<EventId>,
    /// Who sent it.
    pub from: LaneIndex,
    /// When.
    pub sent: u64,
    /// Whom it is for.
    pub to: LaneIndex,
    /// When it arrived, or found nobody.
    pub arrived: Option<u64>,
    /// What it is: `Produce`, `Fetch ok`.
    pub label: String,
    /// What it says: `orders-0 [17, 18]`.
    pub detail: String,
    /// Whether it answers another one.
    pub is_reply: bool,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It arrived.
    Arrived,
    /// It arrived much later than others do.
    Late,
    /// It was lost.
    Lost,
    /// It found nobody: its connection was closed, or its node was down.
    Discarded,
    /// A cut link held it, and it never went on.
    Held,
    /// It was under way at the end.
    UnderWay,
}

impl Fate {
    /// The fate in a word; nothing for what arrived in time.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arrived => "",
            Self::Late => "late",
            Self::Lost => "lost",
            Self::Discarded => "found nobody",
            Self::Held => "held",
            Self::UnderWay => "under way",
        }
    }
}

/// What happened at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its id.
    pub id: EventId,
    /// Where; `None` for what concerns all.
    pub lane: Option<LaneIndex>,
    /// When.
    pub at: u64,
    /// What it is.
    pub kind: MarkKind,
    /// What happened, in a few words.
    pub label: String,
    /// More about it.
    pub detail: String,
}

/// What a mark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MarkKind {
    /// It starts, or starts again.
    Start,
    /// It crashes, stops, or loses power.
    Crash,
    /// It stands still, or goes on.
    Pause,
    /// Another thing that is done to the run: a cut link, a healed one.
    Fault,
    /// The application calls.
    Call,
    /// The application is answered.
    Answer,
    /// The application is told of an error.
    Failure,
    /// A timer comes.
    Timer,
    /// Something is true from here on.
    Fact,
}

impl MarkKind {
    /// The kind in a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Crash => "crash",
            Self::Pause => "pause",
            Self::Fault => "fault",
            Self::Call => "call",
            Self::Answer => "answer",
            Self::Failure => "error",
            Self::Timer => "timer",
            Self::Fact => "fact",
        }
    }

    /// A sign that tells the kinds apart where colors cannot.
    pub const fn sign(self) -> char {
        match self {
            Self::Start => '▲',
            Self::Crash => '✗',
            Self::Pause => '‖',
            Self::Fault => '↯',
            Self::Call => '▸',
            Self::Answer => '✓',
            Self::Failure => '!',
            Self::Timer => '◔',
            Self::Fact => '•',
        }
    }
}

/// What was so for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Band {
    /// The event that began it, if it is shown.
    pub id: Option<EventId>,
    /// What it is.
    pub kind: BandKind,
    /// Of whom; a fault may concern several.
    pub lanes: Vec<LaneIndex>,
    /// Of what: a partition, a group and partition, a link.
    pub subject: String,
    /// More about it: `epoch 3`, `generation 5`.
    pub detail: String,
    /// From when.
    pub from: u64,
    /// To when; `None` if it was so at the end.
    pub to: Option<u64>,
}

/// What a band is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BandKind {
    /// A broker leads a partition.
    Leads,
    /// A member owns a partition.
    Owns,
    /// A node or process is down.
    Down,
    /// A process stands still.
    Paused,
    /// A link is cut.
    Cut,
}

impl BandKind {
    /// The kind in a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leads => "leads",
            Self::Owns => "owns",
            Self::Down => "down",
            Self::Paused => "paused",
            Self::Cut => "cut",
        }
    }
}

/// A commit of an offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its id.
    pub id: EventId,
    /// When.
    pub at: u64,
    /// The group.
    pub group: String,
    /// The partition.
    pub partition: String,
    /// The offset.
    pub offset: i64,
    /// Why it was refused, if it was.
    pub refused: Option<String>,
}

/// What became of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The transactional id.
    pub name: String,
    /// Its states, in the order of time.
    pub states: Vec<TransactionState>,
}

/// A state of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionState {
    /// The event that began it.
    pub id: EventId,
    /// When.
    pub at: u64,
    /// The state, in Kafka's words.
    pub state: String,
    /// More about it: producer id and epoch.
    pub detail: String,
}

/// A sentence of the narrative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentence {
    /// The sentence.
    pub text: String,
    /// What it is about; the first is where it leads to.
    pub ids: Vec<EventId>,
}

/// A step of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When it came about, if it did.
    pub at: Option<u64>,
    /// What.
    pub text: String,
    /// Whether the verdict needs it, if that was tried.
    pub is_needed: Option<bool>,
    /// The event, if it is shown.
    pub id: Option<EventId>,
}

impl Diagram {
    /// The causal past of the witness, with the witness; of everything if there is none.
    pub fn past(&self) -> BTreeSet<EventId> {
        if self.witness.is_empty() {
            return self.ids();
        }
        let mut past = BTreeSet::new();
        let mut next = self.witness.clone();
        next.extend(self.narrative.iter().flat_map(|sentence| &sentence.ids));
        while let Some(id) = next.pop() {
            if past.insert(id) {
                next.extend(self.causes.get(&id).into_iter().flatten());
            }
        }
        past
    }

    /// Everything that has an id and a place in the diagram of space and time.
    pub fn ids(&self) -> BTreeSet<EventId> {
        let arrows =
            self.arrows.iter().flat_map(|arrow| std::iter::once(arrow.id).chain(arrow.end));
        arrows.chain(self.marks.iter().map(|mark| mark.id)).collect()
    }

    /// The last time that anything is known of.
    pub fn end(&self) -> u64 {
        let arrows = self.arrows.iter().map(|arrow| arrow.arrived.unwrap_or(arrow.sent));
        let marks = self.marks.iter().map(|mark| mark.at);
        let bands = self.bands.iter().map(|band| band.to.unwrap_or(band.from));
        let logs = self.logs.iter().flat_map(|log| &log.changes).map(|change| change.at);
        arrows.chain(marks).chain(bands).chain(logs).max().unwrap_or(0)
    }

    /// The time of the last of the witness; the end if there is none.
    pub fn focus(&self) -> u64 {
        let is_witness = |id: &EventId| self.witness.contains(id);
        let arrows = self
            .arrows
            .iter()
            .filter(|arrow| is_witness(&arrow.id) || arrow.end.as_ref().is_some_and(is_witness));
        let marks = self.marks.iter().filter(|mark| is_witness(&mark.id)).map(|mark| mark.at);
        arrows.map(|arrow| arrow.sent).chain(marks).max().unwrap_or_else(|| self.end())
    }

    /// The number of the first sentence that is about each event, from 1.
    pub fn numbers(&self) -> BTreeMap<EventId, usize> {
        let mut numbers = BTreeMap::new();
        for (index, sentence) in self.narrative.iter().enumerate() {
            for id in &sentence.ids {
                numbers.entry(*id).or_insert(index + 1);
            }
        }
        numbers
    }

    /// The name of a lane.
    pub fn lane(&self, index: LaneIndex) -> &str {
        self.lanes.get(index).map_or("?", |lane| &lane.name)
    }
}
