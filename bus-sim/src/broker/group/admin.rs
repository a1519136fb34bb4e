//! ListGroups, DescribeGroups, DeleteGroups.
//!
//! A group can be deleted while it is empty; its offsets go with it.

use std::collections::BTreeSet;

use bus_core::{Bytes, ErrorKind, GroupState};

use super::classic::{Group, State};
use super::offsets::tombstone;
use super::record::GroupRecord;
use super::{Shard, Then};
use crate::broker::Broker;
use crate::broker::connections::Caller;
use crate::node::{Effects, Name};
use crate::protocol::Response;
use crate::protocol::groups::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    DescribedGroup, DescribedMember, GroupDetails, ListGroupsResponse,
};
use crate::time::SimTime;

/// A request to delete groups, some of whose tombstones are not below the high watermark.
#[derive(Debug)]
pub(in crate::broker) struct DelayedDeletion {
    /// How many groups it waits for.
    remaining: usize,
    response: DeleteGroupsResponse,
}

impl Broker {
    pub(in crate::broker) fn list_groups(&mut self, caller: Caller, effects: &mut Effects) {
        let mut groups: Vec<_> = self
            .shards
            .values()
            .flat_map(|shard| &shard.groups)
            .map(|(group_id, group)| (Name::clone(group_id), group.state.described()))
            .collect();
        groups.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        let result = if self.shards.values().any(|shard| shard.is_loading) {
            Err(ErrorKind::CoordinatorLoadInProgress)
        } else {
            Ok(groups)
        };
        let response = Response::ListGroups(ListGroupsResponse { result });
        self.connections.respond(caller, response, effects);
    }

    pub(in crate::broker) fn describe_groups(
        &mut self,
        caller: Caller,
        request: DescribeGroupsRequest,
        effects: &mut Effects,
    ) {
        let describe = |group_id: Name| {
            let result = self.shard_of_named(&group_id).map(|partition| {
                let group = self.shards[&partition].groups.get(&group_id);
                group.map_or_else(no_group, Group::describe)
            });
            DescribedGroup { group_id, result }
        };
        let groups = request.groups.into_iter().map(describe).collect();
        let response = Response::DescribeGroups(DescribeGroupsResponse { groups });
        self.connections.respond(caller, response, effects);
    }

    pub(in crate::broker) fn delete_groups(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: DeleteGroupsRequest,
        effects: &mut Effects,
    ) {
        let plans: Vec<_> = request
            .groups
            .iter()
            .map(|group_id| {
                let partition = self.shard_of_named(group_id)?;
                let records = self.shards[&partition].plan_deletion(group_id)?;
                Ok((partition, Name::clone(group_id), records))
            })
            .collect();
        let outcomes = request.groups.into_iter().zip(plans.iter().map(|plan| plan.as_ref().err()));
        let groups = outcomes.map(|(group_id, error)| (group_id, error.copied())).collect();
        let plans: Vec<_> = plans.into_iter().flatten().collect();
        let response = DeleteGroupsResponse { groups };
        if plans.is_empty() {
            self.connections.respond(caller, Response::DeleteGroups(response), effects);
            return;
        }
        let delayed = DelayedDeletion { remaining: plans.len(), response };
        self.deletions.insert(caller.connection, delayed);
        for (partition, group_id, records) in plans {
            self.with_shard(now, partition, effects, |_, turn| {
                turn.write(records, Then::Deleted { caller, group_id });
            });
        }
    }

    /// The tombstones of a group are durable, or could not be written in time.
    pub(super) fn deleted(
        &mut self,
        caller: Caller,
        group_id: &Name,
        error: Option<ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(delayed) = self.deletions.get_mut(&caller.connection) else { return };
        delayed.remaining -= 1;
        let mut groups = delayed.response.groups.iter_mut();
        if let Some((_, outcome)) = groups.find(|(deleted, _)| deleted == group_id) {
            *outcome = outcome.or(error);
        }
        if delayed.remaining == 0
            && let Some(delayed) = self.deletions.remove(&caller.connection)
        {
            let response = Response::DeleteGroups(delayed.response);
            self.connections.respond(caller, response, effects);
        }
    }
}

impl Shard {
    /// The tombstones of a group and its offsets, or why it cannot be deleted.
    fn plan_deletion(&self, group_id: &Name) -> Result<Vec<GroupRecord>, ErrorKind> {
        let group = self.groups.get(group_id).ok_or(ErrorKind::GroupIdNotFound)?;
        if group.state != State::Empty {
            return Err(ErrorKind::NonEmptyGroup);
        }
        let pending = group.pending_offsets.values().flat_map(|pending| pending.keys());
        let partitions: BTreeSet<_> = group.offsets.keys().chain(pending).collect();
        let offsets = partitions.into_iter().map(|partition| tombstone(group_id, partition));
        let group = GroupRecord::Group { group_id: Name::clone(group_id), value: None };
        Ok(offsets.chain([group]).collect())
    }
}

impl Group {
    fn describe(&self) -> GroupDetails {
        let is_stable = self.state == State::Stable;
        let member = |member: &super::classic::Member| DescribedMember {
            member_id: Name::clone(&member.id),
            group_instance_id: member.group_instance_id.clone(),
            client_id: Name::clone(&member.client_id),
            assignment: if is_stable { member.assignment.clone() } else { Bytes::new() },
        };
        let protocol = self.protocol.clone().filter(|_| is_stable);
        GroupDetails {
            state: self.state.described(),
            protocol: protocol.unwrap_or_else(|| "".into()),
            members: self.members.values().map(member).collect(),
        }
    }
}

/// A group that does not exist.
fn no_group() -> GroupDetails {
    GroupDetails { state: GroupState::Dead, protocol: "".into(), members: Vec::new() }
}
