//! The judge: compares the orders of the shop with the ledger of the platform.

use std::collections::{BTreeMap, BTreeSet};

use bus_core::Result;

use super::order::{Order, OrderId};
use super::outbox::OutboxRow;
use super::{OrderExport, World, guarantee};
use crate::catalogue::Form;
use crate::report::{Broken, GroupReport, PartitionReport, Report, Verdict};

/// How the run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing was under way any more.
    Settled,
    /// Something still was when the time was up.
    OutOfTime,
}

/// Whether every confirmed order is at the platform.
pub(super) fn is_complete(world: &World) -> Result<bool> {
    let received: BTreeSet<OrderId> = world.platform.received_order_ids().into_iter().collect();
    let orders = world.store.all::<Order>()?;
    Ok(orders.iter().all(|order| !order.is_confirmed() || received.contains(&order.id)))
}

/// Judges a run that has ended.
pub(super) fn judge(
    config: &OrderExport,
    world: &World,
    end: End,
    partitions: Vec<PartitionReport>,
    group: GroupReport,
) -> Result<Report> {
    let orders = world.store.all::<Order>()?;
    let mut counts = BTreeMap::<OrderId, usize>::new();
    for order in world.platform.received_order_ids() {
        *counts.entry(order).or_default() += 1;
    }
    let count = |order: &Order| counts.get(&order.id).copied().unwrap_or(0);
    let ids = |which: &dyn Fn(&Order) -> bool| {
        let chosen = orders.iter().filter(|order| which(order));
        chosen.map(|order| order.id.as_str()).collect::<Vec<_>>()
    };
    let missing = ids(&|order| order.is_confirmed() && count(order) == 0);
    let early = ids(&|order| !order.is_confirmed() && count(order) > 0);
    let twice = ids(&|order| count(order) > 1);

    let mut broken = Vec::new();
    let mut breaks = |guarantee, ids: &[&str], what: &str| {
        broken.extend(ids.iter().map(|id| Broken { guarantee, sentence: format!("{id} {what}") }));
    };
    if end == End::Settled {
        let lost = "was confirmed but never reached the platform, and nothing is under way";
        breaks(guarantee::EXPORTED, &missing, lost);
    }
    breaks(guarantee::CONFIRMED, &early, "is at the platform, unconfirmed");
    let repeated = "reached the platform repeatedly";
    let mut notes = Vec::new();
    match config.form {
        // The as-written form promises no more than at least once.
        Form::AsWritten => notes.extend(twice.iter().map(|id| format!("{id} {repeated}"))),
        Form::Sound => breaks(guarantee::ONCE, &twice, repeated),
    }

    let verdict = match (broken.is_empty(), end) {
        (false, _) => Verdict::Violated,
        (true, End::Settled) => Verdict::Held,
        (true, End::OutOfTime) => Verdict::Stalled,
    };
    let confirmed = orders.iter().filter(|order| order.is_confirmed()).count();
    notes.push(format!(
        "{confirmed} of {} orders were confirmed; {} of these reached the platform",
        orders.len(),
        confirmed - missing.len(),
    ));
    if verdict == Verdict::Stalled {
        notes.push(format!(
            "after {:?} there were still {} requests without an answer, {} rows in the outbox, \
             and a lag of {}",
            config.deadline,
            world.requests.open(),
            world.store.all::<OutboxRow>()?.len(),
            group.lag,
        ));
    }
    let foreign = counts.keys().filter(|id| orders.iter().all(|order| order.id != **id)).count();
    if foreign > 0 {
        notes.push(format!("{foreign} orders of earlier runs were in the topic, and exported too"));
    }
    Ok(Report {
        verdict,
        broken,
        notes,
        records: partitions.iter().map(|partition| partition.records).sum(),
        partitions,
        groups: vec![group],
    })
}
