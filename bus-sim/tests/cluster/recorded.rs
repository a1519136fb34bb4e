//! The record of events: every event has a cause that leads back, and every message two ends.

use std::time::Duration;

use bus_core::{NewTopic, ProducerConfig, ProducerRecord, Result};
use bus_sim::event::{Change, Fate, Place, SimEvent, SimEventKind};
use bus_sim::fact::Fact;
use bus_sim::{Api, Sim, SimConfig, SimHandle, SimReport};

use crate::common::bad_day;

#[test]
fn causes_are_a_tree_that_leads_back_to_a_start_a_call_or_a_fault() {
    for events in [recorded(1, 1, bad_day).recorded, recorded(2, 3, cut_in_three).recorded] {
        assert!(events.len() > 1_000, "only {} events", events.len());
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event.seq, index as u64 + 1, "numbers have no gap");
            if let Some(cause) = event.cause.map(|cause| at(&events, cause)) {
                assert!(cause.seq < event.seq && cause.at <= event.at, "{cause:?}\n{event:?}");
            } else {
                assert!(is_root(&event.kind), "nothing caused {event:?}");
            }
        }
    }
}

#[test]
fn a_message_has_both_ends() {
    for events in [recorded(1, 1, bad_day).recorded, recorded(2, 3, cut_in_three).recorded] {
        let mut arrived = 0;
        for event in &events {
            match &event.kind {
                SimEventKind::Sent {
                    fate: Fate::Arrived(end) | Fate::Discarded(end), to, ..
                } => {
                    let end = at(&events, *end);
                    assert_eq!(end.cause, Some(event.seq), "{event:?}\n{end:?}");
                    assert_eq!(&end.place, to, "{event:?}\n{end:?}");
                    arrived += 1;
                }
                SimEventKind::Arrived => {
                    let sent = at(&events, event.cause.expect("a message was sent"));
                    let is_sent = matches!(&sent.kind, SimEventKind::Sent { fate, .. }
                        if *fate == Fate::Arrived(event.seq));
                    assert!(is_sent, "{sent:?}\n{event:?}");
                }
                _ => {}
            }
        }
        assert!(arrived > 300, "only {arrived} messages");
    }
}

#[test]
fn an_acknowledgement_leads_back_to_the_send() {
    let events = recorded(7, 3, send_one).recorded;
    let delivered = events
        .iter()
        .find(|event| matches!(&event.kind, SimEventKind::Delivered { base_offset: Some(0), .. }));
    let mut chain = vec![delivered.expect("the record is acknowledged")];
    while let Some(cause) = chain.last().and_then(|event| event.cause) {
        chain.push(at(&events, cause));
    }
    let apis = chain.iter().filter_map(|event| match &event.kind {
        SimEventKind::Sent { message, .. } => message.api(),
        _ => None,
    });
    let apis = apis.collect::<Vec<_>>();
    // Acknowledged by all: the fetch of a follower is what let the leader answer.
    assert_eq!(apis[..2], [Api::Produce, Api::Fetch], "{chain:#?}");
}

#[test]
fn faults_and_facts_are_events() {
    let events = recorded(2, 3, cut_in_three).recorded;
    let changes = events.iter().filter_map(|event| match &event.kind {
        SimEventKind::Changed(change, _) => Some((&event.place, *change)),
        _ => None,
    });
    let changes = changes.collect::<Vec<_>>();
    assert!(changes.contains(&(&Place::Broker(1), Change::Crashed)), "{changes:?}");
    let held = |kind: &SimEventKind| matches!(kind, SimEventKind::Sent { is_held: true, .. });
    assert!(events.iter().any(|event| held(&event.kind)), "a cut link holds messages");
    let crash = events
        .iter()
        .position(|event| matches!(event.kind, SimEventKind::Changed(Change::Crashed, _)));
    let after = &events[crash.expect("a broker crashes")..];
    let is_elected = |event: &&SimEvent| {
        matches!(&event.kind, SimEventKind::Fact(Fact::Leader { leader: Some(_), .. }))
    };
    let elected = after.iter().find(is_elected).expect("another leader");
    assert_eq!(elected.place, Place::Controller);
}

#[test]
fn a_fact_has_the_number_that_it_is_told_with() {
    let report = recorded(2, 3, cut_in_three);
    let told = report.facts.iter().map(|told| (told.event, &told.fact));
    let recorded = report.recorded.iter().filter_map(|event| match &event.kind {
        SimEventKind::Fact(fact) => Some((event.number, fact)),
        _ => None,
    });
    assert!(told.clone().count() > 10, "{:?}", report.facts);
    assert_eq!(told.collect::<Vec<_>>(), recorded.collect::<Vec<_>>());
}

#[test]
fn the_record_changes_nothing_and_is_empty_unless_asked_for() {
    let with = recorded(1, 1, bad_day);
    let config = SimConfig { seed: 1, ..Default::default() };
    let without = Sim::new(config).expect("a valid configuration").run(bad_day).report;
    assert_eq!(with.trace_hash, without.trace_hash);
    assert_eq!(with.events, without.events);
    assert!(without.recorded.is_empty());
}

/// A record, acknowledged by all replicas.
async fn send_one(sim: SimHandle) -> Result<()> {
    let bus = sim.bus();
    bus.admin()?.create_topic(NewTopic::new("orders").replication_factor(3)).await?;
    let producer = bus.producer(ProducerConfig::default())?;
    producer.send(ProducerRecord::to("orders").value("1")).await?;
    Ok(())
}

/// Brokers cannot reach each other, then one crashes and comes back.
async fn cut_in_three(sim: SimHandle) -> Result<()> {
    send_one(sim.clone()).await?;
    sim.partition_brokers(1, 2)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    sim.heal();
    sim.crash_broker(1)?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    sim.restart_broker(1)?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    Ok(())
}

fn recorded<F, T>(seed: u64, brokers: i32, app: impl FnOnce(SimHandle) -> F) -> SimReport
where
    F: Future<Output = Result<T>>,
{
    let config =
        SimConfig { seed, brokers, record_events: true, record_facts: true, ..Default::default() };
    let outcome = Sim::new(config).expect("a valid configuration").run(app);
    assert!(matches!(outcome.result, Ok(Ok(_))), "the story ends well");
    outcome.report
}

fn at(events: &[SimEvent], seq: u64) -> &SimEvent {
    &events[usize::try_from(seq - 1).expect("numbers begin at 1")]
}

fn is_root(kind: &SimEventKind) -> bool {
    match kind {
        SimEventKind::Changed(..) | SimEventKind::Note(_) | SimEventKind::Called { .. } => true,
        SimEventKind::Cut(_) | SimEventKind::Mended(_) | SimEventKind::Healed => true,
        // A call that is answered at once.
        SimEventKind::Returned { .. } | SimEventKind::Rebalance(_) => true,
        SimEventKind::Polled(_) => true,
        _ => false,
    }
}
