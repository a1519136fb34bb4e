//! Rebalances: librdkafka's event becomes a guard, and the completed guard librdkafka's answer.

use std::sync::{Arc, Weak};

use bus_core::{
    BoxFuture, Operation, Rebalance, RebalanceCompleter, RebalanceKind, Result, TopicPartition,
};
use futures_util::FutureExt as _;

use super::core::{Core, Native, Seen, closed, to_list};
use super::place;
use super::state::{Mode, Pending};
use crate::ffi::consumer::{self as requests, Protocol};
use crate::ffi::{Event, Failure};

/// Takes note of a rebalance event. One that the application does not wait for is answered.
pub(crate) fn arrived(core: &Core, native: &Native, event: &Event, is_assign: bool) -> Seen {
    let mut partitions: Vec<_> =
        event.list().into_iter().map(|listed| listed.topic_partition).collect();
    partitions.sort();
    let mut state = core.state.lock();
    // What a new subscription leaves out librdkafka calls lost, although it is still the member's.
    let is_given_up = state.is_given_up(&partitions);
    let kind = if is_assign {
        RebalanceKind::Assigned
    } else if requests::is_assignment_lost(native.client()) && !is_given_up {
        RebalanceKind::Lost
    } else {
        RebalanceKind::Revoked
    };
    let rebalance = Arc::new(Rebalance { kind, partitions });
    // A subscription that is over may leave a revocation behind, of partitions that the
    // application has given up already.
    let is_known = is_assign
        || rebalance.partitions.is_empty()
        || rebalance.partitions.iter().any(|p| state.assignment.contains_key(p));
    if state.mode == Mode::Subscribed && is_known {
        let may_turn_lost = kind == RebalanceKind::Revoked && !is_given_up;
        state.pending = Some(Pending { rebalance, may_turn_lost });
        return Seen::Rebalance;
    }
    drop(state);
    if let Err(failure) = answer(native, &rebalance) {
        tracing::warn!(target: "librdkafka", ?failure, "a rebalance could not be answered");
    }
    Seen::Nothing
}

/// The rebalance that waits for the application. A revocation turns into a loss when the group
/// did not wait.
pub(crate) fn pending(core: &Core, native: &Native) -> Option<Arc<Rebalance>> {
    let mut state = core.state.lock();
    let pending = state.pending.as_mut()?;
    if requests::is_assignment_lost(native.client()) {
        pending.turn_lost();
    }
    Some(Arc::clone(&pending.rebalance))
}

/// Gives librdkafka the answer that it waits for.
pub(crate) fn answer(native: &Native, rebalance: &Rebalance) -> Result<(), Failure> {
    let client = native.client();
    let list = to_list(&rebalance.partitions);
    let is_cooperative = requests::protocol(client) == Protocol::Cooperative;
    match (rebalance.kind, is_cooperative) {
        (RebalanceKind::Assigned, true) => requests::incremental_assign(client, &list),
        (RebalanceKind::Assigned, false) => requests::assign(client, Some(&list)),
        (RebalanceKind::Revoked | RebalanceKind::Lost, true) => {
            requests::incremental_unassign(client, &list)
        }
        (RebalanceKind::Revoked | RebalanceKind::Lost, false) => requests::assign(client, None),
    }
}

/// Completes the guards of a consumer. It does not keep the consumer alive.
pub(crate) struct Completer {
    core: Weak<Core>,
}

impl Completer {
    pub(crate) const fn new(core: Weak<Core>) -> Self {
        Self { core }
    }
}

impl RebalanceCompleter for Completer {
    fn complete(&self, rebalance: Arc<Rebalance>) -> BoxFuture<'static, Result<()>> {
        let core = self.core.upgrade();
        async move {
            core.ok_or_else(closed)
                .and_then(|core| complete(&core, &rebalance))
                .map_err(|error| error.with_operation(Operation::CompleteRebalance))
        }
        .boxed()
    }
}

fn complete(core: &Core, rebalance: &Arc<Rebalance>) -> Result<()> {
    let mut pump = core.pump.lock();
    let native = core.native.client()?;
    let is_cooperative = requests::protocol(native.client()) == Protocol::Cooperative;
    let mut state = core.state.lock();
    let is_pending = |pending: &Pending| Arc::ptr_eq(&pending.rebalance, rebalance);
    if !state.pending.as_ref().is_some_and(is_pending) {
        return Ok(());
    }
    state.pending = None;
    // librdkafka keeps the pause of a partition that goes; the contract does not.
    let paused: Vec<TopicPartition> = rebalance
        .partitions
        .iter()
        .filter(|partition| state.assignment.get(partition).is_some_and(|place| place.is_paused))
        .cloned()
        .collect();
    state.apply(rebalance, is_cooperative);
    if !paused.is_empty() {
        requests::pause(native.client(), &to_list(&paused), false).map_err(Failure::into_error)?;
    }
    let assignment = &state.assignment;
    pump.forget(|partition| !assignment.contains_key(partition));
    answer(&native, rebalance).map_err(Failure::into_error)?;
    place::seek_again(&native, &mut pump, &mut state);
    drop(state);
    core.wake.notify_waiters();
    Ok(())
}
