//! `claim-before-effect` (A16): a handler that makes itself idempotent, and loses what it was
//! asked.
//!
//! Payments arrive at least once, so the handler writes the id of each into a table of its database
//! first, and leaves those that it finds there. In the buggy form that is a transaction of its own.
//! A crash behind it, before the payment is booked, and the record comes again: its id is there
//! already, and nobody ever books it. The fix is one transaction for both.
//!
//! See the idempotent consumer in Chris Richardson's *Microservices Patterns*, 3.3.6.

use std::time::Duration;

use bus_core::{
    Bus, Consumer, ConsumerExt as _, NewTopic, ProducerConfig, ProducerExt as _, ProducerRecord,
    Record, Recovery, Result, Subscription, Topic,
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
    name: "claim-before-effect",
    title: "A handler that makes itself idempotent, and loses what it was asked",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |_| "brokers=1",
        faults: &["CrashProcess", "LoseCommitAnswer"],
        horizon: Duration::from_secs(10),
    },
    run: |bus, form, setting| Box::pin(run(bus, form, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "E6 skipped-record";

/// Both processes consume.
pub const PROCESSES: [&str; 2] = ["payments-1", "payments-2"];
/// The id is in the table, and the payment is not booked.
pub const CLAIMED_NOT_BOOKED: &str = "payments: claimed, not yet booked";
/// The payment is booked, and the group has not committed it.
pub const BOOKED_NOT_COMMITTED: &str = "payments: booked, not yet committed";

const TOPIC: &str = "payments";
const GROUP: &str = "bookkeeping";
const PAYMENTS: usize = 20;

/// The id of a payment that was seen.
#[derive(Debug, Serialize, Deserialize)]
struct Claim(String);

impl Row for Claim {
    const TABLE: &'static str = "claims";

    fn key(&self) -> String {
        self.0.clone()
    }
}

/// A payment that is booked.
#[derive(Debug, Serialize, Deserialize)]
struct Payment(String);

impl Row for Payment {
    const TABLE: &'static str = "payments";

    fn key(&self) -> String {
        self.0.clone()
    }
}

/// Sends payments, has them booked by a group of two, and looks which of them are not.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, form: Form, setting: Setting) -> Result<Report> {
    let crash_points = setting.crash_points.clone();
    create_topic(&bus, NewTopic::new(TOPIC).partitions(2)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), GROUP).await?;
    let producer = bus.producer(ProducerConfig::default())?;
    let count = setting.size("payments", 1..=PAYMENTS);
    let ids: Vec<_> = (1..=count).map(|n| format!("payment-{n:02}")).collect();
    let records = ids.iter().map(|id| ProducerRecord::to(TOPIC).key(id.clone()).value(id.clone()));
    for sent in producer.send_all(records.collect::<Vec<_>>()).await {
        sent?;
    }
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
        let consumer = bus.consumer(member::config(self.name, GROUP))?;
        consumer.subscribe(Subscription::topics([TOPIC]))?;
        while let Some(records) = member::polled(&*consumer, &life).await? {
            for record in &records {
                self.handle(&*consumer, record).await?;
            }
        }
        consumer.close().await
    }

    async fn handle(&self, consumer: &dyn Consumer, record: &Record) -> Result<()> {
        let id = value(record);
        let mut transaction = self.store.begin();
        if transaction.find::<Claim>(&id)?.is_none() {
            transaction.insert(&Claim(id.clone()))?;
            if self.form == Form::AsWritten {
                member::commit_new(transaction).await?;
                self.crash_points.reach(self.name, CLAIMED_NOT_BOOKED).await;
                transaction = self.store.begin();
            }
            transaction.insert(&Payment(id))?;
            member::commit_new(transaction).await?;
        }
        self.crash_points.reach(self.name, BOOKED_NOT_COMMITTED).await;
        match consumer.commit_record(record).await {
            // The record comes again, here or at the member that has the partition now.
            Err(error) if error.recovery() == Recovery::Fix => Err(error),
            _ => Ok(()),
        }
    }
}
