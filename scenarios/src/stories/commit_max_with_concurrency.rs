//! `commit-max-with-concurrency` (C16): records that are done in another order, and the commit of
//! the highest one.
//!
//! A member works on several records of a partition at a time, and commits as each is done. In the
//! buggy form that is the highest offset so far, which says that all before it are done, too. A
//! crash while a slow one is not, and nobody ever gets it again. The fix is to commit up to the
//! first that is not done.
//!
//! See IBM/sarama#1287, bsm/sarama-cluster#148, and kafkajs#320.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::{
    Bus, Consumer, ConsumerConfig, NewTopic, Offset, Record, Result, Subscription, Topic,
    TopicPartition,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::unbounded_channel;

use super::common::{finished, processes, value};
use super::member;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::crash_points::CrashPoints;
use crate::lifecycle::Lifecycle;
use crate::patience::create_topic;
use crate::report::{Broken, Observer, Report};
use crate::setting::Setting;
use crate::store::{Row, Store};

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "commit-max-with-concurrency",
    title: "Records that are done in another order, and the commit of the highest",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |_| "brokers=1",
        faults: &["CrashProcess", "PauseProcess", "LoseResponse"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, form, setting| Box::pin(run(bus, form, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "E5 committed-too-far";

/// Both processes consume.
pub const PROCESSES: [&str; 2] = ["payments-1", "payments-2"];
/// A payment is booked, and the group has not committed it.
pub const BOOKED_NOT_COMMITTED: &str = "payments: booked, not yet committed";
/// The group has committed it.
pub const COMMITTED: &str = "payments: committed";

const TOPIC: &str = "payments";
const GROUP: &str = "bookkeeping";
const PAYMENTS: usize = 32;
/// One in so many takes long.
const LARGE: usize = 5;

/// A payment that is booked.
#[derive(Debug, Serialize, Deserialize)]
struct Payment(String);

impl Row for Payment {
    const TABLE: &'static str = "payments";

    fn key(&self) -> String {
        self.0.clone()
    }
}

/// Sends payments, has them booked by a group of two, and looks which of them are not when the
/// group has committed all.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, form: Form, setting: Setting) -> Result<Report> {
    let crash_points = setting.crash_points.clone();
    create_topic(&bus, NewTopic::new(TOPIC).partitions(2)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), GROUP).await?;
    let id = |n: usize| match n % LARGE {
        0 => format!("large-{n:02}"),
        _ => format!("payment-{n:02}"),
    };
    let count = setting.size("payments", 1..=PAYMENTS);
    let ids: Vec<_> = (1..=count).map(id).collect();
    member::send(&bus, TOPIC, 2, &ids).await?;
    let (store, life) = (Store::default(), Lifecycle::default());
    for name in processes(&setting, &PROCESSES) {
        let store = store.used_by(name, &setting.commits);
        let books = Books { name, form, store, crash_points: crash_points.clone() };
        let life_inside = life.clone();
        life.process(&bus, name, move |bus| books.clone().keep(bus, life_inside.clone()));
    }
    let is_settled = finished(&bus, &observer, &life).await?;
    let booked: Vec<_> = store.all::<Payment>()?.into_iter().map(|payment| payment.0).collect();
    let missing = ids.iter().filter(|id| !booked.contains(id));
    let broken = missing.map(|id| Broken {
        guarantee: GUARANTEE,
        sentence: format!("{id} was committed by the group, and was never booked"),
    });
    observer.report(is_settled, broken.collect()).await
}

/// One process of the group.
#[derive(Clone, Debug)]
struct Books {
    name: &'static str,
    form: Form,
    store: Store,
    crash_points: CrashPoints,
}

impl Books {
    async fn keep(self, bus: Bus, life: Lifecycle) -> Result<()> {
        let config = ConsumerConfig { max_poll_records: 8, ..member::config(self.name, GROUP) };
        let consumer = bus.consumer(config)?;
        consumer.subscribe(Subscription::topics([TOPIC]))?;
        while let Some(records) = member::polled(&*consumer, &life).await? {
            self.work(&bus, &*consumer, records).await?;
        }
        consumer.close().await
    }

    /// Books all at one time, and commits as each is done.
    async fn work(&self, bus: &Bus, consumer: &dyn Consumer, records: Vec<Record>) -> Result<()> {
        let mut progress = BTreeMap::<TopicPartition, Progress>::new();
        for record in &records {
            let partition = progress.entry(record.topic_partition()).or_default();
            partition.begun(record.offset);
        }
        let (sender, mut receiver) = unbounded_channel();
        for record in records {
            let (books, sender) = (self.clone(), sender.clone());
            drop(bus.spawn("worker", async move {
                let booked = books.book(&record).await;
                // Nobody listens to it after the end.
                drop(sender.send(booked.map(|()| (record.topic_partition(), record.offset))));
            }));
        }
        drop(sender);
        while let Some(done) = receiver.recv().await {
            let (topic_partition, offset) = done?;
            let Some(partition) = progress.get_mut(&topic_partition) else { continue };
            partition.done(offset);
            let next_offset = match self.form {
                Form::AsWritten => partition.after_the_highest(),
                Form::Sound => partition.first_that_is_not_done(),
            };
            let commit = consumer.commit(&[(topic_partition, next_offset.into())]);
            member::is_certain(commit.await)?;
            self.crash_points.reach(self.name, COMMITTED).await;
        }
        Ok(())
    }

    async fn book(&self, record: &Record) -> Result<()> {
        let id = value(record);
        let time = if id.starts_with("large") { LARGE_TAKES } else { OTHERS_TAKE };
        tokio::time::sleep(time).await;
        member::insert_once(&self.store, &Payment(id)).await?;
        self.crash_points.reach(self.name, BOOKED_NOT_COMMITTED).await;
        Ok(())
    }
}

/// How far a partition is: for each offset of a batch whether it is done.
#[derive(Debug, Default)]
struct Progress(BTreeMap<Offset, bool>);

impl Progress {
    fn begun(&mut self, offset: Offset) {
        self.0.insert(offset, false);
    }

    fn done(&mut self, offset: Offset) {
        self.0.insert(offset, true);
    }

    fn after_the_highest(&self) -> Offset {
        let done = self.0.iter().filter(|(_, is_done)| **is_done);
        done.map(|(offset, _)| offset + 1).max().unwrap_or(0)
    }

    fn first_that_is_not_done(&self) -> Offset {
        let open = self.0.iter().find(|(_, is_done)| !**is_done).map(|(offset, _)| *offset);
        open.unwrap_or_else(|| self.after_the_highest())
    }
}

const LARGE_TAKES: Duration = Duration::from_millis(300);
const OTHERS_TAKE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_is_not_passed() {
        let mut progress = Progress::default();
        (5..=8).for_each(|offset| progress.begun(offset));
        for (done, contiguous, highest) in [(6, 5, 7), (5, 7, 7), (8, 7, 9), (7, 9, 9)] {
            progress.done(done);
            assert_eq!(progress.first_that_is_not_done(), contiguous);
            assert_eq!(progress.after_the_highest(), highest);
        }
    }
}
