//! `commit-after-revoke` (C05): a worker that is done too late, and commits for the next owner.
//!
//! Members hand what they poll to workers of their own, and commit what those acknowledge. Some
//! payments take seconds: the bank has to be asked. Meanwhile the group rebalances, and another
//! member has the partition, goes on from the last commit, and is far ahead when the worker is
//! done. In the buggy form its acknowledgment is committed like every other, with the generation of
//! now: the coordinator does not look whose partition it is, and the offset of the group goes back.
//! The fix is to drop acknowledgments of an assignment that is over.
//!
//! See redpanda-data/connect#4477, kafkajs#1046, and segmentio/kafka-go#1308.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Bus, Consumer, ConsumerConfig, NewTopic, Offset, OffsetAndMetadata, Polled, RebalanceGuard,
    RebalanceKind, Record, Recovery, Result, Subscription, Topic, TopicPartition,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::common::{processes, value};
use super::ledger::Ledger;
use super::member;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::crash_points::CrashPoints;
use crate::lifecycle::Lifecycle;
use crate::patience::{create_topic, patiently};
use crate::report::{Observer, Report};
use crate::setting::Setting;
use crate::store::{Row, Store};

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "commit-after-revoke",
    title: "A worker that is done too late, and commits for the next owner",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |_| "brokers=1",
        faults: &["PauseProcess", "CrashProcess", "LoseResponse"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, form, setting| Box::pin(run(bus, form, setting)),
};

/// Both processes consume.
pub const PROCESSES: [&str; 2] = ["payments-1", "payments-2"];
/// A worker is done with a batch, and has not acknowledged it.
pub const BOOKED_NOT_ACKNOWLEDGED: &str = "payments: booked, not yet acknowledged";

const TOPIC: &str = "payments";
const GROUP: &str = "bookkeeping";
const PARTITIONS: i32 = 2;
const PAYMENTS: usize = 40;
/// One in so many is unknown to the bank.
const UNKNOWN: usize = 13;

/// A payment that is booked.
#[derive(Debug, Serialize, Deserialize)]
struct Payment(String);

impl Row for Payment {
    const TABLE: &'static str = "payments";

    fn key(&self) -> String {
        self.0.clone()
    }
}

/// Has payments booked by a group of two while they come in, restarts the group when all are
/// booked, and looks what it is given again.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, form: Form, setting: Setting) -> Result<Report> {
    let crash_points = setting.crash_points.clone();
    create_topic(&bus, NewTopic::new(TOPIC).partitions(PARTITIONS)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), GROUP).await?;
    let id = |n: usize| match n % UNKNOWN {
        0 => format!("unknown-{n:02}"),
        _ => format!("payment-{n:02}"),
    };
    let count = setting.size("payments", 1..=PAYMENTS);
    let ids: Vec<_> = (1..=count).map(id).collect();
    let (store, life, ledger) = (Store::default(), Lifecycle::default(), Ledger::default());
    let bank = Bank::default();
    for name in processes(&setting, &PROCESSES) {
        let books = Books {
            name,
            form,
            store: store.used_by(name, &setting.commits),
            bank: bank.clone(),
            ledger: ledger.clone(),
            crash_points: crash_points.clone(),
        };
        let life_inside = life.clone();
        life.process(&bus, name, move |bus| books.clone().keep(bus, life_inside.clone()));
    }
    member::trickle(&bus, TOPIC, PARTITIONS, &ids, BETWEEN_PAYMENTS).await?;
    let is_booked = || Ok(store.all::<Payment>()?.len() == ids.len());
    let is_booked = member::until(&bus, &life, is_booked).await?;
    // What is booked may be under way at another member once more; it ends, too.
    tokio::time::sleep(ASKS_AROUND * 2).await;
    life.stop(Duration::from_secs(30)).await;
    let is_settled = is_booked && ledger.restart(&bus, GROUP, TOPIC).await?;
    observer.report(is_settled, ledger.broken()).await
}

/// The bank: knows most payments, and asks around for the others, once.
#[derive(Clone, Debug, Default)]
struct Bank {
    asked: Arc<Mutex<BTreeSet<String>>>,
}

impl Bank {
    async fn ask(&self, id: &str) {
        let is_new = id.starts_with("unknown") && self.asked.lock().insert(id.to_owned());
        tokio::time::sleep(if is_new { ASKS_AROUND } else { ANSWERS }).await;
    }
}

/// One process of the group.
#[derive(Clone, Debug)]
struct Books {
    name: &'static str,
    form: Form,
    store: Store,
    bank: Bank,
    ledger: Ledger,
    crash_points: CrashPoints,
}

/// A worker is done with a partition up to an offset.
#[derive(Debug)]
struct Acknowledgment {
    /// In which assignment it got its records.
    assignment: u64,
    partition: TopicPartition,
    next_offset: Offset,
}

/// A consumer and its workers.
struct Member {
    books: Books,
    bus: Bus,
    consumer: Arc<dyn Consumer>,
    /// Counts revocations.
    assignment: u64,
    /// What is acknowledged, and not committed.
    uncommitted: BTreeMap<TopicPartition, Offset>,
    sender: UnboundedSender<Acknowledgment>,
    receiver: UnboundedReceiver<Acknowledgment>,
}

impl Books {
    async fn keep(self, bus: Bus, life: Lifecycle) -> Result<()> {
        let consumer = bus.consumer(ConsumerConfig {
            session_timeout: Duration::from_secs(2),
            max_poll_records: 5,
            ..member::config(self.name, GROUP)
        })?;
        consumer.subscribe(Subscription::topics([TOPIC]))?;
        let (sender, receiver) = unbounded_channel();
        let (assignment, uncommitted) = (0, BTreeMap::new());
        let mut member =
            Member { books: self, bus, consumer, assignment, uncommitted, sender, receiver };
        while let Some(polled) = life.unless_stopping(member.consumer.poll(TICK)).await {
            match polled {
                Ok(Polled::Records(records)) => member.hand_out(records),
                Ok(Polled::Rebalance(guard)) => member.rebalance(guard).await?,
                Err(error) if matches!(error.recovery(), Recovery::Rejoin | Recovery::Retry) => {
                    life.unless_stopping(tokio::time::sleep(TICK)).await;
                }
                Err(error) => return Err(error),
            }
            member.acknowledged();
            member.commit().await?;
        }
        member.consumer.close().await
    }

    /// Books what was polled of one partition, in its order.
    async fn book(self, records: Vec<Record>) -> Result<()> {
        for record in &records {
            let id = value(record);
            self.bank.ask(&id).await;
            member::insert_once(&self.store, &Payment(id)).await?;
        }
        self.crash_points.reach(self.name, BOOKED_NOT_ACKNOWLEDGED).await;
        Ok(())
    }
}

impl Member {
    /// Gives each partition's records to a worker; until it is done, no more of them are polled.
    fn hand_out(&self, records: Vec<Record>) {
        let mut batches = BTreeMap::<_, Vec<_>>::new();
        for record in records {
            batches.entry(record.topic_partition()).or_default().push(record);
        }
        for (partition, records) in batches {
            // It is assigned, or the next poll says what became of it.
            drop(self.consumer.pause(std::slice::from_ref(&partition)));
            let next_offset = records.last().map_or(0, Record::next_offset);
            let acknowledgment =
                Acknowledgment { assignment: self.assignment, partition, next_offset };
            let (books, sender) = (self.books.clone(), self.sender.clone());
            drop(self.bus.spawn("worker", async move {
                // Its partition is paused: nobody else tries again what may pass.
                if patiently(|| books.clone().book(records.clone())).await.is_ok() {
                    // Nobody listens to it after the end.
                    drop(sender.send(acknowledgment));
                }
            }));
        }
    }

    async fn rebalance(&mut self, guard: RebalanceGuard) -> Result<()> {
        match guard.kind() {
            RebalanceKind::Assigned => {}
            RebalanceKind::Revoked | RebalanceKind::Lost => {
                if guard.kind() == RebalanceKind::Revoked {
                    self.acknowledged();
                    self.commit().await?;
                }
                self.uncommitted.clear();
                self.assignment += 1;
            }
        }
        guard.complete().await
    }

    /// Takes note of what the workers have done.
    fn acknowledged(&mut self) {
        while let Ok(done) = self.receiver.try_recv() {
            if self.books.form == Form::Sound && done.assignment != self.assignment {
                continue;
            }
            // If it is not assigned any more, there is nothing to resume.
            drop(self.consumer.resume(std::slice::from_ref(&done.partition)));
            self.uncommitted.insert(done.partition, done.next_offset);
        }
    }

    async fn commit(&mut self) -> Result<()> {
        let offsets: Vec<(TopicPartition, OffsetAndMetadata)> = self
            .uncommitted
            .iter()
            .map(|(partition, at)| (partition.clone(), (*at).into()))
            .collect();
        if !offsets.is_empty() && member::is_certain(self.consumer.commit(&offsets).await)? {
            self.books.ledger.committed(&offsets);
            self.uncommitted.clear();
        }
        Ok(())
    }
}

const BETWEEN_PAYMENTS: Duration = Duration::from_millis(150);
/// How long the bank takes for what it knows, and for what it does not.
const ANSWERS: Duration = Duration::from_millis(20);
const ASKS_AROUND: Duration = Duration::from_secs(8);
/// How long a poll waits: then the workers are heard.
const TICK: Duration = Duration::from_millis(50);
