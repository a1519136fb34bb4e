//! Rules: what of a program is not run, because a real Kafka does not always do the same.
//!
//! They look at the program alone, never at an outcome, so both backends leave out the same; and
//! they are applied when a program is run, not when it is made, so that every part of a program
//! keeps to them.

use std::collections::{BTreeMap, BTreeSet};

use bus_core::{Acks, Assignor, CompressionType, StartAt};
use serde::{Deserialize, Serialize};

use crate::data::Data;
use crate::program::{
    AdminStep, ConsumerStep, ProducerSpec, ProducerStep, Program, RecordSpec, Sending, Step,
    TopicSpec, TransactorStep,
};
use crate::slot::{ConsumerSlot, Place, ProducerSlot, TopicSlot, TransactorSlot};

macro_rules! exclusions {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// Why a step or a record is not run.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum Exclusion { $($(#[doc = $doc])+ $name),+ }

        impl Exclusion {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Why, in a sentence.
            pub fn reason(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim(),)+ }
            }
        }
    };
}

exclusions! {
    /// A record without key and partition goes where the sticky partitioner draws, unless the topic
    /// has one partition.
    KeylessSpread,
    /// librdkafka takes timestamp 0 for "now" (docs/fidelity.md), so there it is refused.
    TimestampZero,
    /// When open clients learn that a topic they know was created, deleted, or grown is a matter of
    /// their timers.
    ClientsKnowTheTopic,
    /// A refused batch takes all its records along, and without a long linger it is a matter of
    /// timing which these are.
    BatchCutByTiming,
    /// With acks=0 a refusal breaks the connection, and what is sent next may be lost with it.
    RefusalUnheard,
    /// The simulator does not compress, so what is compressed must be small enough without.
    Compressed,
    /// Each record of a refused batch learns whether it was its fault (KIP-467); the simulator's
    /// client tells all of them the same.
    RecordErrors,
    /// librdkafka tells of a missing partition when it looks at the topic again, and until it knows
    /// where one partition begins it may begin with none of them.
    MissingAmongAssigned,
    /// On Kafka a seek to a place without a number asks the leader, on the simulator the next fetch
    /// does, so a missing partition shows at different times.
    SeekInMissing,
    /// librdkafka looks for matches of a pattern in the metadata that it has, and tells of a
    /// missing topic that it finds a moment later.
    PatternOnOldMetadata,
    /// librdkafka commits what was assigned by hand when it subscribes; a group with members
    /// refuses that, and librdkafka does not join before it has given up.
    AutoCommitAgainstMembers,
    /// A group waits for a static member that has closed, until its session times out.
    StaticMemberGone,
    /// A member whose assignor the group does not have is refused and tries again for ever.
    AssignorsDiffer,
    /// A cooperative member that subscribes to other topics revokes those that it gives up, but if
    /// librdkafka has no metadata of the new ones, it joins again only if it leads the group.
    RejoinForgotten,
}

/// A linger this long holds all records that one step sends at once together.
pub const LINGER_TOGETHER_MS: u32 = 50;

/// What of a program is not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    steps: BTreeMap<usize, Exclusion>,
    records: BTreeMap<(usize, usize), Exclusion>,
}

impl Exclusions {
    /// Looks through a program.
    pub fn of(program: &Program) -> Self {
        let mut walk = Walk::new(program);
        for (index, step) in program.steps.iter().enumerate() {
            walk.step(index, step);
        }
        walk.found
    }

    /// Why a step is not run, if it is not.
    pub fn step(&self, step: usize) -> Option<Exclusion> {
        self.steps.get(&step).copied()
    }

    /// Why a record of a step is not sent, if it is not.
    pub fn record(&self, step: usize, record: usize) -> Option<Exclusion> {
        self.records.get(&(step, record)).copied()
    }

    /// How many steps and records are left out.
    pub fn len(&self) -> usize {
        self.steps.len() + self.records.len()
    }

    /// Whether all is run.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A client, with what its metadata may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Client {
    Producer(ProducerSlot),
    Transactor(TransactorSlot),
    Consumer(ConsumerSlot),
}

/// What is known of the state before a step without running it.
struct Walk<'a> {
    program: &'a Program,
    topics: BTreeMap<TopicSlot, TopicSpec>,
    known: BTreeMap<Client, BTreeSet<TopicSlot>>,
    members: BTreeSet<ConsumerSlot>,
    /// What members have subscribed to.
    subscribed: BTreeMap<ConsumerSlot, BTreeSet<TopicSlot>>,
    /// Consumers with an assignment by hand.
    by_hand: BTreeSet<ConsumerSlot>,
    /// Static members that have closed without leaving.
    gone: BTreeSet<ConsumerSlot>,
    found: Exclusions,
}

impl<'a> Walk<'a> {
    fn new(program: &'a Program) -> Self {
        Self {
            program,
            topics: program.topics.clone(),
            known: BTreeMap::new(),
            members: BTreeSet::new(),
            subscribed: BTreeMap::new(),
            by_hand: BTreeSet::new(),
            gone: BTreeSet::new(),
            found: Exclusions::default(),
        }
    }

    fn step(&mut self, index: usize, step: &Step) {
        let excluded = match step {
            Step::Producer(slot, step) => {
                self.producer(index, *slot, step);
                None
            }
            Step::Transactor(slot, step) => {
                self.transactor(index, *slot, step);
                None
            }
            Step::Consumer(slot, step) => self.consumer(*slot, step),
            Step::Admin(step) => self.admin(step),
        };
        if let Some(excluded) = excluded {
            self.found.steps.insert(index, excluded);
        }
    }

    fn knows(&mut self, client: Client, topics: impl IntoIterator<Item = TopicSlot>) {
        self.known.entry(client).or_default().extend(topics);
    }

    fn producer(&mut self, index: usize, slot: ProducerSlot, step: &ProducerStep) {
        let client = Client::Producer(slot);
        match step {
            ProducerStep::Send(sending) => {
                self.sending(index, sending, &self.program.producer(slot));
                self.knows(client, sending.records.iter().map(|record| record.to));
            }
            ProducerStep::PartitionsFor(topic) => self.knows(client, [*topic]),
            ProducerStep::Close | ProducerStep::Reopen => {
                self.known.remove(&client);
            }
            ProducerStep::Flush => {}
        }
    }

    fn transactor(&mut self, index: usize, slot: TransactorSlot, step: &TransactorStep) {
        let client = Client::Transactor(slot);
        match step {
            TransactorStep::Send(sending) => {
                self.sending(index, sending, &ProducerSpec::default());
                self.knows(client, sending.records.iter().map(|record| record.to));
            }
            TransactorStep::Close | TransactorStep::Reopen => {
                self.known.remove(&client);
            }
            TransactorStep::Init
            | TransactorStep::Begin
            | TransactorStep::SendOffsets { .. }
            | TransactorStep::Commit
            | TransactorStep::Abort => {}
        }
    }

    fn sending(&mut self, index: usize, sending: &Sending, spec: &ProducerSpec) {
        let is_batch = !sending.one_by_one && sending.records.len() > 1;
        let has_record_errors = is_batch && sending.records.iter().any(|r| self.may_be_at_fault(r));
        let is_cut = is_batch
            && spec.linger_ms < LINGER_TOGETHER_MS
            && sending.records.iter().any(|record| self.may_be_refused(record));
        for (n, record) in sending.records.iter().enumerate() {
            let excluded = if record.timestamp == Some(0) {
                Exclusion::TimestampZero
            } else if self.is_spread(record) {
                Exclusion::KeylessSpread
            } else if spec.acks == Acks::None && self.may_be_refused(record) {
                Exclusion::RefusalUnheard
            } else if spec.compression != CompressionType::None && self.may_be_refused(record) {
                Exclusion::Compressed
            } else if has_record_errors {
                Exclusion::RecordErrors
            } else if is_cut {
                Exclusion::BatchCutByTiming
            } else {
                continue;
            };
            self.found.records.insert((index, n), excluded);
        }
    }

    fn is_spread(&self, record: &RecordSpec) -> bool {
        let partitions = self.topics.get(&record.to).map_or(1, |spec| spec.partitions);
        record.partition.is_none() && record.key == Data::Null && partitions > 1
    }

    /// Whether the broker, not the client, may refuse a record.
    fn may_be_refused(&self, record: &RecordSpec) -> bool {
        const LARGE: usize = 900_000;

        let is_strict = self.topics.get(&record.to).is_some_and(|spec| !spec.config.is_empty());
        let is_future =
            record.timestamp.is_some_and(|time| !(0..=1_000_000_000_000).contains(&time));
        let is_large = record.key.len() + record.value.len() > LARGE;
        is_strict || is_future || is_large
    }

    /// Whether the broker may refuse a record for what is in it, not for the size of its batch.
    fn may_be_at_fault(&self, record: &RecordSpec) -> bool {
        let rules = ["cleanup.policy", "message.timestamp.before.max.ms"];
        let has_rule = |spec: &TopicSpec| rules.iter().any(|rule| spec.config.contains_key(*rule));
        let is_future = record.timestamp.is_some_and(|time| time > 1_000_000_000_000);
        is_future || self.topics.get(&record.to).is_some_and(has_rule)
    }

    /// Whether a partition exists, as far as that is known.
    fn exists(&self, place: Place) -> bool {
        let spec = self.topics.get(&place.topic);
        spec.is_some_and(|spec| (0..spec.partitions).contains(&place.partition))
    }

    fn consumer(&mut self, slot: ConsumerSlot, step: &ConsumerStep) -> Option<Exclusion> {
        let client = Client::Consumer(slot);
        if let Some(excluded) = self.mishap(slot, step) {
            return Some(excluded);
        }
        let topics: Vec<TopicSlot> = match step {
            ConsumerStep::Subscribe { topics, pattern, .. } => {
                self.members.insert(slot);
                self.by_hand.remove(&slot);
                self.gone.remove(&slot);
                let topics = topics.iter().chain(pattern).copied();
                self.subscribed.insert(slot, topics.clone().collect());
                topics.collect()
            }
            ConsumerStep::Assign(starts) => {
                self.members.remove(&slot);
                self.by_hand.insert(slot);
                starts.iter().map(|(place, _)| place.topic).collect()
            }
            ConsumerStep::Unsubscribe => {
                self.members.remove(&slot);
                self.by_hand.remove(&slot);
                Vec::new()
            }
            ConsumerStep::Close | ConsumerStep::Reopen => {
                if self.members.remove(&slot) && self.program.consumer(slot).is_static {
                    self.gone.insert(slot);
                }
                self.by_hand.remove(&slot);
                self.known.remove(&client);
                Vec::new()
            }
            ConsumerStep::Seek(place, _)
            | ConsumerStep::Watermarks(place)
            | ConsumerStep::Position(place) => vec![place.topic],
            ConsumerStep::Pause(places)
            | ConsumerStep::Resume(places)
            | ConsumerStep::Committed(places) => places.iter().map(|place| place.topic).collect(),
            ConsumerStep::Commit(offsets) => offsets.iter().map(|(at, ..)| at.topic).collect(),
            ConsumerStep::Store(offsets) => offsets.iter().map(|(at, _)| at.topic).collect(),
            ConsumerStep::OffsetsForTimes(times) => times.iter().map(|(at, _)| at.topic).collect(),
            ConsumerStep::Read
            | ConsumerStep::Take(_)
            | ConsumerStep::CommitPositions
            | ConsumerStep::Positions
            | ConsumerStep::Membership => Vec::new(),
        };
        self.knows(client, topics);
        None
    }

    /// What librdkafka does about a step that depends on its timers.
    fn mishap(&self, slot: ConsumerSlot, step: &ConsumerStep) -> Option<Exclusion> {
        let changes_group = match step {
            ConsumerStep::Subscribe { .. } => true,
            ConsumerStep::Assign(_)
            | ConsumerStep::Unsubscribe
            | ConsumerStep::Close
            | ConsumerStep::Reopen => self.members.contains(&slot),
            _ => false,
        };
        if changes_group && self.waits_for_static_member(slot) {
            return Some(Exclusion::StaticMemberGone);
        }
        match step {
            ConsumerStep::Subscribe { topics, pattern, .. } => {
                let knows = self.known.get(&Client::Consumer(slot));
                if self.assignors_differ(slot) {
                    Some(Exclusion::AssignorsDiffer)
                } else if !pattern.is_empty() && knows.is_some_and(|known| !known.is_empty()) {
                    Some(Exclusion::PatternOnOldMetadata)
                } else if self.commits_against_members(slot) {
                    Some(Exclusion::AutoCommitAgainstMembers)
                } else if self.forgets_to_rejoin(slot, topics) {
                    Some(Exclusion::RejoinForgotten)
                } else {
                    None
                }
            }
            ConsumerStep::Assign(starts) => {
                let missing = starts.iter().filter(|(place, _)| !self.exists(*place)).count();
                let is_in_topic = |place: &Place| self.topics.contains_key(&place.topic);
                let alone =
                    starts.len() == 1 && !starts.iter().any(|(place, _)| is_in_topic(place));
                (missing > 0 && !alone).then_some(Exclusion::MissingAmongAssigned)
            }
            ConsumerStep::Seek(place, to) => {
                let is_look_up = !matches!(to, StartAt::Offset(_));
                (is_look_up && !self.exists(*place)).then_some(Exclusion::SeekInMissing)
            }
            _ => None,
        }
    }

    fn commits_against_members(&self, slot: ConsumerSlot) -> bool {
        let spec = self.program.consumer(slot);
        let mut others = self.members.iter().filter(|other| **other != slot);
        self.by_hand.contains(&slot)
            && spec.auto_commit
            && others.any(|other| self.program.consumer(*other).group == spec.group)
    }

    fn forgets_to_rejoin(&self, slot: ConsumerSlot, topics: &[TopicSlot]) -> bool {
        let before = self.subscribed.get(&slot).filter(|_| self.members.contains(&slot));
        let swaps = |before: &BTreeSet<TopicSlot>| {
            before.iter().any(|topic| !topics.contains(topic))
                && topics.iter().any(|topic| !before.contains(topic))
        };
        self.program.consumer(slot).assignor.is_cooperative() && before.is_some_and(swaps)
    }

    fn waits_for_static_member(&self, slot: ConsumerSlot) -> bool {
        let group = self.program.consumer(slot).group;
        let mut gone = self.gone.iter().filter(|other| **other != slot);
        gone.any(|other| self.program.consumer(*other).group == group)
    }

    fn assignors_differ(&self, slot: ConsumerSlot) -> bool {
        let of = |slot: ConsumerSlot| -> (_, Assignor) {
            let spec = self.program.consumer(slot);
            (spec.group, spec.assignor)
        };
        let (group, assignor) = of(slot);
        let others = self.members.iter().filter(|other| **other != slot);
        group.is_some() && others.map(|other| of(*other)).any(|o| o.0 == group && o.1 != assignor)
    }

    fn admin(&mut self, step: &AdminStep) -> Option<Exclusion> {
        let topic = match step {
            AdminStep::CreateTopic(topic, _)
            | AdminStep::DeleteTopic(topic)
            | AdminStep::CreatePartitions(topic, _) => topic,
            AdminStep::AlterTopicConfig(topic, changes) => {
                if let Some(spec) = self.topics.get_mut(topic) {
                    spec.config.extend(changes.clone());
                }
                return None;
            }
            _ => return None,
        };
        if self.known.values().any(|known| known.contains(topic)) {
            return Some(Exclusion::ClientsKnowTheTopic);
        }
        match step {
            AdminStep::CreateTopic(topic, spec) if is_valid(spec) => {
                self.topics.entry(*topic).or_insert_with(|| spec.clone());
            }
            AdminStep::DeleteTopic(topic) => {
                self.topics.remove(topic);
            }
            AdminStep::CreatePartitions(topic, partitions) => {
                if let Some(spec) = self.topics.get_mut(topic) {
                    spec.partitions = spec.partitions.max(*partitions);
                }
            }
            _ => {}
        }
        None
    }
}

/// Whether a topic can be made, as far as that shows.
fn is_valid(spec: &TopicSpec) -> bool {
    let is_good = |(name, value): (&String, &String)| match name.as_str() {
        "cleanup.policy" | "message.timestamp.type" => true,
        "max.message.bytes"
        | "message.timestamp.before.max.ms"
        | "min.insync.replicas"
        | "retention.ms" => value.parse::<i64>().is_ok(),
        _ => false,
    };
    spec.partitions > 0
        && spec.replicas.is_none_or(|replicas| replicas == 1)
        && spec.config.iter().all(is_good)
}
