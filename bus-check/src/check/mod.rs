//! The checkers: one per guarantee, each a function of the model that adds the anomalies it finds.
//!
//! - [`mod@log`]: A, what is at an offset;
//! - [`durability`]: B, what was acknowledged is there;
//! - [`producer`]: C, order, identity, and completion of sends;
//! - [`consumer`]: D, sessions; [`mod@group`] and [`mod@commit`]: E;
//! - [`transaction`]: F; [`liveness`]: H;
//! - [`white`]: G, and what of B, D, F, and H is judged by what happened inside of the cluster.
//!
//! An anomaly is found first, and judged afterwards: by whether its condition holds, and by the
//! ground truth.

pub mod commit;
pub mod consumer;
pub mod durability;
pub mod group;
pub mod liveness;
pub mod log;
pub mod producer;
pub mod transaction;
pub mod white;

use bus_core::Offset;

use crate::environment::{Durability, Environment, Removal};
use crate::guarantee::Guarantee;
use crate::history::{ClientId, EntryId, NameId, OperationId, PartitionId};
use crate::model::Model;
use crate::truth::Question;
use white::White;

/// A checker.
#[derive(Clone, Copy, Debug)]
pub struct Checker {
    /// What it checks.
    pub guarantee: Guarantee,
    /// Finds the anomalies.
    pub check: Check,
}

/// How anomalies are found.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// In the history alone.
    History(fn(&Model<'_>, &mut Anomalies)),
    /// In what happened inside of the cluster, beside the history.
    Cluster(fn(&Model<'_>, &White<'_>, &mut Anomalies)),
}

/// All checkers, in the order of the guarantees.
pub const ALL: &[Checker] = &[
    checker(Guarantee::A1, log::inconsistent_offset),
    checker(Guarantee::A2, log::duplicate_append),
    checker(Guarantee::A3, log::garbage_read),
    checker(Guarantee::A4, log::mutated_record),
    checker(Guarantee::A5, log::misrouted_record),
    checker(Guarantee::A6, log::hole),
    checker(Guarantee::A7, log::read_below_start),
    checker(Guarantee::A8, log::wrong_offset_told),
    checker(Guarantee::A10, log::disagreeing_neighbors),
    checker(Guarantee::B1, durability::lost_write),
    checker(Guarantee::B2, durability::lost_finally),
    checker(Guarantee::B3, durability::resurrected_send),
    white(Guarantee::B4, white::committed_truncation),
    white(Guarantee::B5, white::premature_ack),
    checker(Guarantee::B6, durability::end_regress),
    checker(Guarantee::C1, producer::nonmonotonic_send),
    checker(Guarantee::C2, producer::pipelined_inversion),
    checker(Guarantee::C3, producer::realtime_inversion),
    checker(Guarantee::C4, producer::sequence_hole),
    checker(Guarantee::C5, producer::completion_not_once),
    checker(Guarantee::C6, producer::completions_out_of_order),
    checker(Guarantee::C7, producer::zombie_append),
    checker(Guarantee::C8, producer::false_fencing),
    checker(Guarantee::C9, producer::flush_too_early),
    checker(Guarantee::D1, consumer::nonmonotonic_within),
    checker(Guarantee::D2, consumer::skipped_within),
    checker(Guarantee::D3, consumer::nonmonotonic),
    checker(Guarantee::D4, consumer::skipped),
    checker(Guarantee::D5, consumer::wrong_start),
    checker(Guarantee::D6, consumer::wrong_seek),
    white(Guarantee::D7, white::future_read),
    checker(Guarantee::D9, consumer::stale_end),
    checker(Guarantee::D10, consumer::not_due),
    checker(Guarantee::D12, consumer::too_large),
    checker(Guarantee::E1, group::double_ownership),
    checker(Guarantee::E2, group::overlapping_ownership),
    checker(Guarantee::E3, group::zombie_commit),
    checker(Guarantee::E4, commit::out_of_nowhere),
    checker(Guarantee::E5, commit::too_far),
    checker(Guarantee::E6, commit::skipped),
    checker(Guarantee::E7, commit::given_again),
    checker(Guarantee::E8, commit::lost),
    checker(Guarantee::E9, group::incomplete_assignment),
    checker(Guarantee::E10, group::illegal_hand_over),
    checker(Guarantee::E11, group::callback_protocol),
    checker(Guarantee::E12, group::generation_regress),
    checker(Guarantee::F1, transaction::aborted_read),
    checker(Guarantee::F2, transaction::dirty_read),
    checker(Guarantee::F4, transaction::torn),
    checker(Guarantee::F5, transaction::lost),
    checker(Guarantee::F6, transaction::phantom),
    checker(Guarantee::F7, transaction::split),
    checker(Guarantee::F8, transaction::offsets),
    checker(Guarantee::F9, transaction::zombie),
    checker(Guarantee::F10, transaction::duplicate_output),
    checker(Guarantee::F11, transaction::missing_output),
    checker(Guarantee::F12, transaction::hanging),
    checker(Guarantee::F14, transaction::out_of_order),
    white(Guarantee::F17, white::id_given_twice),
    white(Guarantee::F18, white::illegal_state),
    checker(Guarantee::F19, transaction::incomplete_commit),
    white(Guarantee::G1, white::incomplete_leader),
    white(Guarantee::G3, white::beyond_in_sync),
    white(Guarantee::G4, white::diverging_logs),
    white(Guarantee::G8, white::committed_gone),
    white(Guarantee::G9, white::two_leaders),
    white(Guarantee::G10, white::watermark_regress),
    white(Guarantee::G11, white::leader_out_of_sync),
    white(Guarantee::G12, white::in_sync_too_early),
    checker(Guarantee::H1, liveness::without_end),
    checker(Guarantee::H2, liveness::not_delivered),
    white(Guarantee::H3, white::no_leader),
    white(Guarantee::H4, white::out_of_sync),
    checker(Guarantee::H5, liveness::rebalance_storm),
    checker(Guarantee::H9, liveness::late_close),
];

const fn checker(guarantee: Guarantee, check: fn(&Model<'_>, &mut Anomalies)) -> Checker {
    Checker { guarantee, check: Check::History(check) }
}

const fn white(guarantee: Guarantee, check: fn(&Model<'_>, &White<'_>, &mut Anomalies)) -> Checker {
    Checker { guarantee, check: Check::Cluster(check) }
}

/// Whether a guarantee holds under the conditions of a run. Ordered from the strongest on, so that
/// conditions combine to the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// It must hold.
    Required,
    /// It must hold if something is so that nobody has said.
    Open,
    /// It need not hold; but if it does not, something must be the cause.
    NotPromised,
}

impl Promise {
    /// Required under a condition.
    pub const fn when(condition: bool) -> Self {
        if condition { Self::Required } else { Self::NotPromised }
    }

    /// Both conditions together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

impl Environment {
    /// SAFE: acknowledged records stay.
    pub(crate) const fn is_kept(&self) -> Promise {
        match self.durability {
            Durability::Safe => Promise::Required,
            Durability::Unknown => Promise::Open,
            Durability::Unsafe => Promise::NotPromised,
        }
    }

    /// SAFE of the offsets topic: a lost commit is an anomaly, unless the cluster may lose
    /// anything.
    pub(crate) const fn is_kept_of_groups(&self) -> Promise {
        self.is_not_cut()
    }

    /// Required unless it is said that logs may be cut.
    pub(crate) const fn is_not_cut(&self) -> Promise {
        Promise::when(!matches!(self.durability, Durability::Unsafe))
    }

    /// Required unless records may be removed.
    pub(crate) const fn stays(&self) -> Promise {
        Promise::when(matches!(self.removal, Removal::None))
    }
}

/// What an anomaly is about; two checkers of one guarantee that agree name the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A place in a log.
    Place(PartitionId, Offset),
    /// A send, a commit, or another operation.
    Operation(OperationId),
    /// A record that was given to a client.
    Delivery(ClientId, PartitionId, Offset),
    /// A partition that was given to a member, by the entry that did it.
    Owned(PartitionId, EntryId),
    /// A partition in a group.
    Group(NameId, PartitionId),
    /// A record in a group.
    Handled(NameId, PartitionId, Offset),
    /// A transaction, by the entry that began it.
    Transaction(EntryId),
    /// A partition.
    Partition(PartitionId),
    /// A guard that a client was given, by its entry.
    Guard(EntryId),
    /// An event of the cluster, by its number.
    Event(u64),
}

/// Something that breaks a guarantee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// What it is about.
    pub subject: Subject,
    /// Whether the guarantee is promised here.
    pub promise: Promise,
    /// The fewest entries that prove it, in order.
    pub witness: Vec<EntryId>,
    /// The events of the cluster that prove it, by number, in order.
    pub events: Vec<u64>,
    /// What happened, as a sentence.
    pub sentence: String,
    /// What to ask those who know what really happened.
    pub question: Option<Question>,
    /// The entry of the history that explains it, if one does.
    pub explained_by: Option<EntryId>,
    /// The event of the cluster that explains it, if one does.
    pub excused_by: Option<u64>,
}

impl Anomaly {
    /// An anomaly with its evidence.
    pub(crate) fn new(
        subject: Subject,
        promise: Promise,
        witness: impl IntoIterator<Item = EntryId>,
        sentence: String,
    ) -> Self {
        let mut witness: Vec<_> = witness.into_iter().collect();
        witness.sort_unstable();
        witness.dedup();
        Self {
            subject,
            promise,
            witness,
            events: Vec::new(),
            sentence,
            question: None,
            explained_by: None,
            excused_by: None,
        }
    }

    /// An anomaly that shows inside of the cluster.
    pub(crate) fn inside(
        promise: Promise,
        events: impl IntoIterator<Item = u64>,
        excuse: Option<u64>,
        sentence: String,
    ) -> Self {
        let events: Vec<_> = events.into_iter().collect();
        let subject = Subject::Event(events.first().copied().unwrap_or(0));
        Self { excused_by: excuse, ..Self::new(subject, promise, [], sentence) }.seen_in(events)
    }

    /// Adds events of the cluster to the evidence.
    pub(crate) fn seen_in(mut self, events: impl IntoIterator<Item = u64>) -> Self {
        self.events.extend(events);
        self.events.sort_unstable();
        self.events.dedup();
        self
    }

    pub(crate) fn asking(mut self, question: Question) -> Self {
        self.question = Some(question);
        self
    }

    pub(crate) fn explained_by(mut self, entry: EntryId) -> Self {
        self.explained_by = Some(entry);
        self
    }
}

/// What a checker finds. A broken run may have millions of anomalies of one kind: all are counted,
/// and the first are kept.
#[derive(Clone, Debug)]
pub struct Anomalies {
    /// How many things were looked at: a guarantee that was never put to the test did not hold.
    pub examined: u64,
    /// How many anomalies there are.
    pub count: u64,
    /// The first of them.
    pub first: Vec<Anomaly>,
    most: usize,
}

impl Anomalies {
    /// None yet; keeps so many.
    pub const fn keeping(most: usize) -> Self {
        Self { examined: 0, count: 0, first: Vec::new(), most }
    }

    /// Adds an anomaly; it is only made if it is kept.
    pub(crate) fn add(&mut self, anomaly: impl FnOnce() -> Anomaly) {
        self.count += 1;
        if self.first.len() < self.most {
            self.first.push(anomaly());
        }
    }
}
