//! The group coordinator: one [`Shard`] per partition of `__consumer_offsets`.
//!
//! Handlers decide, and write records with what shall follow ([`Write`]); what is durable (offsets,
//! the members and assignments of a generation) changes only in [`Shard::replay`], once the records
//! are below the high watermark (`writes`). What is not durable in Kafka either (who waits for a
//! rebalance) is changed by the handlers. So after a crash a coordinator is what its records say.
//!
//! `coordinator` connects the shards with the broker; `classic` is a group of the classic protocol;
//! `join`, `rebalance`, `sync`, and `session` are its transitions; `offsets`, `transactional`, and
//! `admin` the rest.

mod admin;
mod classic;
mod coordinator;
mod join;
mod loading;
mod offsets;
mod rebalance;
pub(super) mod record;
mod session;
mod sync;
pub(super) mod transactional;
mod writes;

use std::collections::{BTreeMap, VecDeque};

use bus_core::{Offset, Partition, Timestamp};

pub(super) use self::admin::DelayedDeletion;
use self::classic::{Group, State};
use self::record::GroupRecord;
use self::transactional::StoredOffset;
use self::writes::Uncommitted;
use super::BrokerTimer;
use super::connections::{Caller, Connections};
use super::session::schedule;
use crate::choice::Choices;
use crate::config::SimConfig;
use crate::fact::Fact;
use crate::mutation::Mutation;
use crate::node::{Effects, Name, Timer};
use crate::protocol::batch::{NO_SEQUENCE, ProducerEpoch, ProducerId, ProducerStamp, RecordBatch};
use crate::protocol::write_txn_markers::Marker;
use crate::protocol::{Response, offset_fetch};
use crate::time::SimTime;

/// The coordinator of the groups of one partition of `__consumer_offsets`.
#[derive(Debug, Default)]
pub(super) struct Shard {
    /// It reads its partition; its groups are not known yet.
    is_loading: bool,
    /// Whether the timer for expired offsets is set.
    expires_offsets: bool,
    pub(super) groups: BTreeMap<Name, Group>,
    /// What was written and is not below the high watermark.
    uncommitted: VecDeque<Uncommitted>,
    /// Whether the timer for what waits too long is set.
    expires_writes: bool,
}

/// Records to append, and what follows once they are below the high watermark.
#[derive(Debug)]
pub(super) struct Write {
    records: Vec<GroupRecord>,
    /// What they are to a transaction, if anything.
    transaction: Option<InTransaction>,
    then: Then,
}

/// What is written of a transaction.
#[derive(Clone, Debug)]
enum InTransaction {
    /// Offsets that count once it commits.
    Offsets((ProducerId, ProducerEpoch)),
    /// Its end; there are no records beside it.
    End(Marker),
}

impl Write {
    /// The batch to append, if there is anything.
    fn batch(&self, now: Timestamp) -> Option<RecordBatch> {
        let records = self.records.iter().map(|record| record.encode(now)).collect::<Vec<_>>();
        match &self.transaction {
            Some(InTransaction::End(marker)) => {
                let producer = (marker.producer_id, marker.producer_epoch);
                let epoch = marker.coordinator_epoch;
                Some(RecordBatch::marker(producer, marker.control, epoch, now))
            }
            _ if records.is_empty() => None,
            Some(InTransaction::Offsets((producer_id, producer_epoch))) => {
                let (producer_id, producer_epoch) = (*producer_id, *producer_epoch);
                let base_sequence = NO_SEQUENCE;
                let stamp = ProducerStamp { producer_id, producer_epoch, base_sequence };
                Some(RecordBatch::new(Some(stamp), records).transactional())
            }
            None => Some(RecordBatch::new(None, records)),
        }
    }
}

/// What follows once records are below the high watermark.
#[derive(Debug)]
enum Then {
    Nothing,
    Respond(Caller, Response),
    /// Committed offsets are read, as of then.
    FetchOffsets(Caller, offset_fetch::Request),
    /// The members of a generation learn their assignments.
    Assigned {
        group_id: Name,
        generation: i32,
    },
    /// A static member that came back learns where it is.
    StaticRejoined {
        group_id: Name,
        member_id: Name,
    },
    /// One group of a request that deletes groups is deleted.
    Deleted {
        caller: Caller,
        group_id: Name,
    },
}

/// What a handler of a shard works with.
pub(super) struct Turn<'a> {
    now: SimTime,
    partition: Partition,
    config: &'a SimConfig,
    choices: &'a Choices,
    connections: &'a mut Connections,
    effects: &'a mut Effects,
    /// Whether what was written before is not below the high watermark.
    is_behind: bool,
    writes: Vec<Write>,
}

impl Turn<'_> {
    fn respond(&mut self, caller: Caller, response: Response) {
        self.connections.respond(caller, response, self.effects);
    }

    /// Responds once all that was written before is below the high watermark.
    fn respond_when_written(&mut self, caller: Caller, response: Response) {
        if self.is_behind || !self.writes.is_empty() {
            self.write(Vec::new(), Then::Respond(caller, response));
        } else {
            self.respond(caller, response);
        }
    }

    fn write(&mut self, records: Vec<GroupRecord>, then: Then) {
        self.writes.push(Write { records, transaction: None, then });
    }

    fn schedule(&mut self, timer: BrokerTimer, at: SimTime) {
        schedule(timer, at, self.effects);
    }

    fn cancel(&mut self, timer: BrokerTimer) {
        self.effects.cancel_timer(Timer::Broker(timer));
    }

    /// Tells the trace the state of a group.
    fn tell_state(&mut self, group: &Group) {
        self.effects.fact(Fact::GroupState {
            group_id: Name::clone(&group.id),
            generation: group.generation,
            state: group.state.name(),
            members: group.members.len(),
        });
    }

    fn tell_left(&mut self, group_id: &Name, member_id: &Name, reason: &'static str) {
        let (group_id, member_id) = (Name::clone(group_id), Name::clone(member_id));
        self.effects.fact(Fact::MemberLeft { group_id, member_id, reason });
    }
}

impl Shard {
    /// Changes what is durable by a record, which is at the offset `recorded`.
    fn replay(&mut self, now: SimTime, recorded: Offset, record: GroupRecord) {
        match record {
            GroupRecord::Group { group_id, value: Some(value) } if self.is_loading => {
                let new = || Group::new(Name::clone(&group_id), now);
                self.groups.entry(Name::clone(&group_id)).or_insert_with(new).load(now, value);
            }
            GroupRecord::Group { group_id, value: Some(value) } => {
                if let Some(group) = self.groups.get_mut(&group_id) {
                    group.replay(now, value);
                }
            }
            GroupRecord::Group { group_id, value: None } => {
                self.groups.remove(&group_id);
            }
            GroupRecord::Offset { group_id, topic_partition, value: Some(value) } => {
                let new = || Group::new(Name::clone(&group_id), now);
                let group = self.groups.entry(Name::clone(&group_id)).or_insert_with(new);
                group.offsets.insert(topic_partition, StoredOffset { value, recorded });
            }
            GroupRecord::Offset { group_id, topic_partition, value: None } => {
                if let Some(group) = self.groups.get_mut(&group_id) {
                    group.offsets.remove(&topic_partition);
                    for pending in group.pending_offsets.values_mut() {
                        pending.remove(&topic_partition);
                    }
                }
            }
        }
    }

    /// Starts the sessions of the members anew, after a load.
    fn loaded(&mut self, turn: &mut Turn<'_>) {
        let max_size = turn.config.broker.group_max_size;
        for group in self.groups.values_mut() {
            if turn.config.mutation == Some(Mutation::GenerationNotLoaded) {
                group.generation = 0;
            }
            for member in group.members.values_mut() {
                member.touch(turn, &group.id, member.session_timeout);
            }
            if group.members.len() > max_size && group.state == State::Stable {
                group.prepare_rebalance(turn);
            }
        }
        if !self.groups.is_empty() {
            self.watch_offsets(turn);
        }
    }
}
