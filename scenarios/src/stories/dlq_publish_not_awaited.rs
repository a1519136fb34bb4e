//! `dlq-publish-not-awaited` (A03): what a consumer cannot handle is sent to the dead letters, and
//! is in neither place.
//!
//! Payments that are malformed go to a dead letter topic, so that the others go on. In the buggy
//! form the consumer does not wait for that: a task of its own logs what comes of it, and the
//! record is committed meanwhile. If the process crashes before its batch is out, or the brokers
//! are gone until the delivery timeout, nobody has the payment: the group has passed it, and it is
//! no dead letter. The fix is to await the delivery, and not to commit if it fails.
//!
//! See spring-kafka#1259 and PostHog#6881.

use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Bus, ConsumerExt as _, NewTopic, Producer, ProducerConfig, ProducerRecord, Record, Result,
    Subscription, Topic,
};
use serde::{Deserialize, Serialize};

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
    name: "dlq-publish-not-awaited",
    title: "A dead letter that is committed before anybody has it",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |_| "brokers=1",
        faults: &["CrashProcess", "CrashBroker", "CutProcess", "LoseRequest"],
        horizon: Duration::from_secs(10),
    },
    run: |bus, form, setting| Box::pin(run(bus, form, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "E5 committed-too-far";

/// Both processes consume.
pub const PROCESSES: [&str; 2] = ["payments-1", "payments-2"];
/// The payment is booked, or sent to the dead letters, and the group has not committed it.
pub const HANDLED_NOT_COMMITTED: &str = "payments: handled, not yet committed";
/// The group has committed it.
pub const COMMITTED: &str = "payments: committed";

const TOPIC: &str = "payments";
const DEAD_LETTERS: &str = "payments.dlq";
const GROUP: &str = "bookkeeping";
const PAYMENTS: usize = 24;
/// Every so many of them are malformed.
const MALFORMED: usize = 4;
/// Shorter than what brokers may be gone for: a producer gives up at some time.
const DELIVERY: Duration = Duration::from_secs(4);

/// Whatever arrives later than this was never sent.
const LATE: Duration = Duration::from_secs(40);

/// A payment that is booked.
#[derive(Debug, Serialize, Deserialize)]
struct Payment(String);

impl Row for Payment {
    const TABLE: &'static str = "payments";

    fn key(&self) -> String {
        self.0.clone()
    }
}

/// Sends payments, some of them malformed, and looks which are neither booked nor dead letters when
/// the group has committed all.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, form: Form, setting: Setting) -> Result<Report> {
    let crash_points = setting.crash_points.clone();
    let id = |n: usize| match n % MALFORMED {
        0 => format!("malformed-{n:02}"),
        _ => format!("payment-{n:02}"),
    };
    let count = setting.size("payments", 1..=PAYMENTS);
    let ids: Vec<_> = (1..=count).map(id).collect();
    create_topic(&bus, NewTopic::new(DEAD_LETTERS)).await?;
    create_topic(&bus, NewTopic::new(TOPIC).partitions(2)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), GROUP).await?;
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
    let ids = ids.into_iter().filter(|id| !booked.contains(id)).collect();
    let missing = never_sent(&bus, ids).await?;
    let broken = missing.iter().map(|id| Broken {
        guarantee: GUARANTEE,
        sentence: format!("{id} was committed by the group, and is neither booked nor dead letter"),
    });
    observer.report(is_settled, broken.collect()).await
}

/// Those that are no dead letters, even when all that is under way has arrived.
async fn never_sent(bus: &Bus, ids: Vec<String>) -> Result<Vec<String>> {
    let begun = bus.elapsed();
    loop {
        let dead_letters: Vec<_> =
            member::read_back(bus, DEAD_LETTERS).await?.iter().map(value).collect();
        let missing: Vec<_> = ids.iter().filter(|id| !dead_letters.contains(id)).cloned().collect();
        if missing.is_empty() || bus.elapsed().saturating_sub(begun) > LATE {
            return Ok(missing);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
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
        let consumer = bus.consumer(member::config(self.name, GROUP))?;
        let config = ProducerConfig { delivery_timeout: DELIVERY, ..ProducerConfig::default() };
        let producer = bus.producer(config)?;
        consumer.subscribe(Subscription::topics([TOPIC]))?;
        while let Some(records) = member::polled(&*consumer, &life).await? {
            for record in &records {
                self.handle(&bus, &producer, record).await?;
                self.crash_points.reach(self.name, HANDLED_NOT_COMMITTED).await;
                member::is_certain(consumer.commit_record(record).await)?;
                self.crash_points.reach(self.name, COMMITTED).await;
            }
        }
        consumer.close().await?;
        producer.close(DELIVERY).await
    }

    async fn handle(&self, bus: &Bus, producer: &Arc<dyn Producer>, record: &Record) -> Result<()> {
        let id = value(record);
        if id.starts_with("malformed") {
            let sent = producer.send(ProducerRecord::to(DEAD_LETTERS).key(id.clone()).value(id));
            if self.form == Form::Sound {
                // An error ends this member: what it has not committed comes again.
                return sent.await.map(|_| ());
            }
            drop(bus.spawn("dead letter", async move {
                if let Err(error) = sent.await {
                    tracing::warn!(%error, "a dead letter was not sent");
                }
            }));
            return Ok(());
        }
        member::insert_once(&self.store, &Payment(id)).await
    }
}
