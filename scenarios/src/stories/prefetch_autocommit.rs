//! `prefetch-autocommit` (C04): a poll that commits what it has not returned yet.
//!
//! A consumer that commits by itself commits in its polls: what the polls before have returned is
//! done when the application polls again. So it is in Java, but for version 0.9.0.0: there a poll
//! took records, moved the position, and fetched ahead before it returned, and the commit that was
//! due went out there. A crash while the application works on these records, and nobody gets them
//! again. The client is at fault, not the application; the fix is the order of the two.
//!
//! See KAFKA-2942.

use std::time::Duration;

use bus_core::{Bus, ConsumerConfig, NewTopic, Record, Result, Subscription, Topic};
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
    name: "prefetch-autocommit",
    title: "A poll that commits what it has not returned yet",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |form| match form {
            Form::AsWritten => "brokers=1&auto.commit.policy=prefetch",
            Form::Sound => "brokers=1&auto.commit.policy=poll",
        },
        faults: &["CrashProcess", "PauseProcess", "LoseResponse"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "E5 committed-too-far";

/// Both processes consume.
pub const PROCESSES: [&str; 2] = ["payments-1", "payments-2"];
/// A poll has returned the payment, and it is not booked.
pub const POLLED_NOT_BOOKED: &str = "payments: polled, not yet booked";
/// It is booked.
pub const BOOKED: &str = "payments: booked";

const TOPIC: &str = "payments";
const GROUP: &str = "bookkeeping";
const PAYMENTS: usize = 40;

/// A payment that is booked.
#[derive(Debug, Serialize, Deserialize)]
struct Payment(String);

impl Row for Payment {
    const TABLE: &'static str = "payments";

    fn key(&self) -> String {
        self.0.clone()
    }
}

/// Has payments booked by a group of two while they come in, and looks which of them are not when
/// the group has committed all.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    let crash_points = setting.crash_points.clone();
    create_topic(&bus, NewTopic::new(TOPIC).partitions(2)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), GROUP).await?;
    let (store, life) = (Store::default(), Lifecycle::default());
    for name in processes(&setting, &PROCESSES) {
        let store = store.used_by(name, &setting.commits);
        let books = Books { name, store, crash_points: crash_points.clone() };
        let life_inside = life.clone();
        life.process(&bus, name, move |bus| books.clone().keep(bus, life_inside.clone()));
    }
    let count = setting.size("payments", 1..=PAYMENTS);
    let ids: Vec<_> = (1..=count).map(|n| format!("payment-{n:02}")).collect();
    member::trickle(&bus, TOPIC, 2, &ids, BETWEEN_PAYMENTS).await?;
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
    store: Store,
    crash_points: CrashPoints,
}

impl Books {
    async fn keep(self, bus: Bus, life: Lifecycle) -> Result<()> {
        let consumer = bus.consumer(ConsumerConfig {
            enable_auto_commit: true,
            auto_commit_interval: Duration::from_millis(100),
            ..member::config(self.name, GROUP)
        })?;
        consumer.subscribe(Subscription::topics([TOPIC]))?;
        while let Some(records) = member::polled(&*consumer, &life).await? {
            for record in &records {
                self.handle(record).await?;
            }
        }
        consumer.close().await
    }

    async fn handle(&self, record: &Record) -> Result<()> {
        self.crash_points.reach(self.name, POLLED_NOT_BOOKED).await;
        tokio::time::sleep(WORK).await;
        member::insert_once(&self.store, &Payment(value(record))).await?;
        self.crash_points.reach(self.name, BOOKED).await;
        Ok(())
    }
}

const BETWEEN_PAYMENTS: Duration = Duration::from_millis(100);
/// How long a payment takes.
const WORK: Duration = Duration::from_millis(40);
