//! `latest-on-new-partition` (C11): a topic grows, and the first records of its new partition are
//! for nobody.
//!
//! A group reads a topic with `auto.offset.reset=latest`: it was to begin with what is new. Later
//! the topic gets another partition. Consumers look for new partitions once in a while, and so the
//! operator waits for longer than that, and then producers use it. But where a member is late (it
//! stands still, restarts, or cannot reach a broker), it begins at the end of a partition that
//! holds records by then. The fix is `earliest`: a group that is there before a record must not
//! take it for an old one.
//!
//! See KAFKA-12261, KAFKA-12478, and KIP-842.

use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, NewTopic, OffsetReset, Partition, Result, Subscription,
    Topic, TopicPartition,
};
use serde::{Deserialize, Serialize};

use super::common::{finished, value};
use super::member;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::crash_points::CrashPoints;
use crate::lifecycle::Lifecycle;
use crate::patience::{create_topic, patiently};
use crate::report::{Broken, Observer, Report};
use crate::setting::Setting;
use crate::store::{Row, Store};

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "latest-on-new-partition",
    title: "A topic that grows, and records of its new partition that are for nobody",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |_| "brokers=1",
        faults: &["PauseProcess", "CrashProcess", "CutProcess", "LoseRequest", "DelayResponse"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, form, setting| Box::pin(run(bus, form, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "E6 skipped-by-the-group";

/// The process that consumes.
pub const PROCESS: &str = "payments-1";
/// The payment is booked, and the group has not committed it.
pub const BOOKED_NOT_COMMITTED: &str = "payments: booked, not yet committed";

const TOPIC: &str = "payments";
const GROUP: &str = "bookkeeping";
/// So many are paid before the topic grows, and after that.
const BEFORE: usize = 6;
const AFTER: usize = 24;

/// A payment that is booked.
#[derive(Debug, Serialize, Deserialize)]
struct Payment(String);

impl Row for Payment {
    const TABLE: &'static str = "payments";

    fn key(&self) -> String {
        self.0.clone()
    }
}

/// Has payments booked while their topic grows, and looks which of them are not when the group has
/// committed all.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, form: Form, setting: Setting) -> Result<Report> {
    let crash_points = setting.crash_points.clone();
    create_topic(&bus, NewTopic::new(TOPIC)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), GROUP).await?;
    begin_at_the_end(&bus, &observer).await?;
    let (store, life) = (Store::default(), Lifecycle::default());
    let books = Books { form, store: store.used_by(PROCESS, &setting.commits), crash_points };
    let life_inside = life.clone();
    life.process(&bus, PROCESS, move |bus| books.clone().keep(bus, life_inside.clone()));

    let before = setting.size("earlier payments", 0..=BEFORE);
    let after = setting.size("payments", 1..=AFTER);
    let ids: Vec<_> = (1..=before + after).map(|n| format!("payment-{n:02}")).collect();
    member::trickle(&bus, TOPIC, 1, &ids[..before], BETWEEN_PAYMENTS).await?;
    grow(&bus, 2).await?;
    tokio::time::sleep(GRACE).await;
    member::trickle(&bus, TOPIC, 2, &ids[before..], BETWEEN_PAYMENTS).await?;
    // Whatever the group has skipped, it commits past it with these.
    tokio::time::sleep(LULL).await;
    let last = ["payment-last-0".to_owned(), "payment-last-1".to_owned()];
    member::send(&bus, TOPIC, 2, &last).await?;

    let is_settled = finished(&bus, &observer, &life).await?;
    let booked: Vec<_> = store.all::<Payment>()?.into_iter().map(|payment| payment.0).collect();
    let missing = ids.iter().chain(&last).filter(|id| !booked.contains(id));
    let broken = missing.map(|id| Broken {
        guarantee: GUARANTEE,
        sentence: format!("{id} was paid after the group had begun, and it never got it"),
    });
    observer.report(is_settled, broken.collect()).await
}

/// The group is there before the first payment: it has committed where the topic ends now.
async fn begin_at_the_end(bus: &Bus, observer: &Observer) -> Result<()> {
    let consumer = bus.consumer(ConsumerConfig::in_group(GROUP))?;
    let partitions = observer.partitions().await?;
    let ends = partitions.iter().map(|p| (TopicPartition::new(TOPIC, p.partition), p.end.into()));
    let ends: Vec<_> = ends.collect();
    patiently(|| consumer.commit(&ends)).await?;
    consumer.close().await
}

/// Gives the topic so many partitions.
async fn grow(bus: &Bus, partitions: Partition) -> Result<()> {
    let admin = bus.admin()?;
    patiently(|| async {
        // An attempt before may have done it without an answer.
        let described = admin.describe_topic(Topic::from(TOPIC)).await?;
        if described.partitions.len() < usize::try_from(partitions).unwrap_or(0) {
            admin.create_partitions(Topic::from(TOPIC), partitions).await?;
        }
        Ok(())
    })
    .await
}

/// The process of the group.
#[derive(Clone, Debug)]
struct Books {
    form: Form,
    store: Store,
    crash_points: CrashPoints,
}

impl Books {
    async fn keep(self, bus: Bus, life: Lifecycle) -> Result<()> {
        let consumer = bus.consumer(ConsumerConfig {
            auto_offset_reset: match self.form {
                Form::AsWritten => OffsetReset::Latest,
                Form::Sound => OffsetReset::Earliest,
            },
            metadata_refresh_interval: REFRESH,
            ..member::config(PROCESS, GROUP)
        })?;
        consumer.subscribe(Subscription::topics([TOPIC]))?;
        while let Some(records) = member::polled(&*consumer, &life).await? {
            for record in &records {
                member::insert_once(&self.store, &Payment(value(record))).await?;
                self.crash_points.reach(PROCESS, BOOKED_NOT_COMMITTED).await;
                member::is_certain(consumer.commit_record(record).await)?;
            }
        }
        consumer.close().await
    }
}

const BETWEEN_PAYMENTS: Duration = Duration::from_millis(100);
/// How often the consumer looks for new partitions.
const REFRESH: Duration = Duration::from_secs(1);
/// How long the operator waits before a new partition is used.
const GRACE: Duration = Duration::from_secs(3);
/// Longer than all that goes wrong.
const LULL: Duration = Duration::from_secs(40);
