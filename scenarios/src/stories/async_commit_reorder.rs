//! `async-commit-reorder` (C09): two commits that change places on their way.
//!
//! Members commit each record as it is done, and do not wait for the outcome. The client of the
//! buggy form sends commits on several connections at a time, so that an older one may reach the
//! coordinator after a newer one. The last one counts: the offset of the group goes back, although
//! the newer commit had succeeded. In the fixed form the next commit goes out when the one before
//! is answered.
//!
//! See segmentio/kafka-go#439 and IBM/sarama#2947.

use std::time::Duration;

use bus_core::{Bus, Consumer, NewTopic, Record, Result, Subscription, Topic};
use serde::{Deserialize, Serialize};

use super::common::{processes, value};
use super::ledger::Ledger;
use super::member;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::crash_points::CrashPoints;
use crate::lifecycle::Lifecycle;
use crate::patience::create_topic;
use crate::report::{Observer, Report};
use crate::setting::Setting;
use crate::store::{Row, Store};

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "async-commit-reorder",
    title: "Two commits that change places on their way",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |form| match form {
            Form::AsWritten => "brokers=1&commit.max.in.flight=5",
            Form::Sound => "brokers=1&commit.max.in.flight=1",
        },
        faults: &["CrashProcess", "PauseProcess", "LoseResponse"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// Both processes consume.
pub const PROCESSES: [&str; 2] = ["payments-1", "payments-2"];
/// The payment is booked, and the group has not committed it.
pub const BOOKED_NOT_COMMITTED: &str = "payments: booked, not yet committed";
/// Its commit is under way.
pub const COMMITTING: &str = "payments: commits";

const TOPIC: &str = "payments";
const GROUP: &str = "bookkeeping";
const PAYMENTS: usize = 30;

/// A payment that is booked.
#[derive(Debug, Serialize, Deserialize)]
struct Payment(String);

impl Row for Payment {
    const TABLE: &'static str = "payments";

    fn key(&self) -> String {
        self.0.clone()
    }
}

/// Has payments booked by a group of two, restarts it when all is over, and looks what it is given
/// again.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    let crash_points = setting.crash_points.clone();
    create_topic(&bus, NewTopic::new(TOPIC).partitions(2)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), GROUP).await?;
    let count = setting.size("payments", 1..=PAYMENTS);
    let ids: Vec<_> = (1..=count).map(|n| format!("payment-{n:02}")).collect();
    let (store, life, ledger) = (Store::default(), Lifecycle::default(), Ledger::default());
    for name in processes(&setting, &PROCESSES) {
        let books = Books {
            name,
            store: store.used_by(name, &setting.commits),
            ledger: ledger.clone(),
            crash_points: crash_points.clone(),
        };
        let life_inside = life.clone();
        life.process(&bus, name, move |bus| books.clone().keep(bus, life_inside.clone()));
    }
    member::send(&bus, TOPIC, 2, &ids).await?;
    let is_booked = || Ok(store.all::<Payment>()?.len() == ids.len());
    let is_booked = member::until(&bus, &life, is_booked).await?;
    // Commits that are under way arrive.
    tokio::time::sleep(Duration::from_secs(1)).await;
    life.stop(Duration::from_secs(30)).await;
    let is_settled = is_booked && ledger.restart(&bus, GROUP, TOPIC).await?;
    observer.report(is_settled, ledger.broken()).await
}

/// One process of the group.
#[derive(Clone, Debug)]
struct Books {
    name: &'static str,
    store: Store,
    ledger: Ledger,
    crash_points: CrashPoints,
}

impl Books {
    async fn keep(self, bus: Bus, life: Lifecycle) -> Result<()> {
        let consumer = bus.consumer(member::config(self.name, GROUP))?;
        consumer.subscribe(Subscription::topics([TOPIC]))?;
        while let Some(records) = member::polled(&*consumer, &life).await? {
            for record in &records {
                self.handle(&bus, &*consumer, record).await?;
            }
        }
        consumer.close().await
    }

    async fn handle(&self, bus: &Bus, consumer: &dyn Consumer, record: &Record) -> Result<()> {
        member::insert_once(&self.store, &Payment(value(record))).await?;
        self.crash_points.reach(self.name, BOOKED_NOT_COMMITTED).await;
        let committed = [(record.topic_partition(), record.next_offset().into())];
        let commit = consumer.commit(&committed);
        let ledger = self.ledger.clone();
        drop(bus.spawn("commit", async move {
            match commit.await {
                Ok(()) => ledger.committed(&committed),
                Err(error) => tracing::debug!(%error, "not committed"),
            }
        }));
        self.crash_points.reach(self.name, COMMITTING).await;
        Ok(())
    }
}
