//! `stale-stored-offset-rewind` (C06): an offset that was stored for an assignment that is over.
//!
//! Members store the offset of each record that is done, and the client commits by a timer what is
//! stored. A member that stands still for too long loses its partition with an offset that is
//! stored and not committed; the new owner goes on, and is far ahead. When the partition comes
//! back, the client of the buggy form still has the stored offset, and its timer commits it before
//! the first new record: the offset of the group goes back. The client is at fault, not the
//! application; the fix is to reset stored offsets with each assignment.
//!
//! See librdkafka#2782, fixed in 1.4.2 and 1.9.0.

use std::time::Duration;

use bus_core::{
    Admin, Bus, Consumer, ConsumerConfig, ErrorKind, NewTopic, Record, Result, Subscription, Topic,
};
use serde::{Deserialize, Serialize};

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
    name: "stale-stored-offset-rewind",
    title: "An offset that was stored for an assignment that is over",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |form| match form {
            Form::AsWritten => "brokers=1&offset.store.outlives.assignment=true",
            Form::Sound => "brokers=1&offset.store.outlives.assignment=false",
        },
        faults: &["PauseProcess", "CrashProcess", "LoseResponse"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// Both processes consume.
pub const PROCESSES: [&str; 2] = ["payments-1", "payments-2"];
/// The payment is booked, and its offset not stored.
pub const BOOKED_NOT_STORED: &str = "payments: booked, not yet stored";
/// Its offset is stored, and the group has not committed it.
pub const STORED_NOT_COMMITTED: &str = "payments: stored, not yet committed";

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

/// Has payments booked by a group of two while they come in, looks what the group commits, restarts
/// it when all is over, and looks what it is given again.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    let crash_points = setting.crash_points.clone();
    create_topic(&bus, NewTopic::new(TOPIC).partitions(2)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), GROUP).await?;
    let (store, life, ledger) = (Store::default(), Lifecycle::default(), Ledger::default());
    for name in processes(&setting, &PROCESSES) {
        let store = store.used_by(name, &setting.commits);
        let books = Books { name, store, crash_points: crash_points.clone() };
        let life_inside = life.clone();
        life.process(&bus, name, move |bus| books.clone().keep(bus, life_inside.clone()));
    }
    let count = setting.size("payments", 1..=PAYMENTS);
    let ids: Vec<_> = (1..=count).map(|n| format!("payment-{n:02}")).collect();
    member::trickle(&bus, TOPIC, 2, &ids, BETWEEN_PAYMENTS).await?;
    let is_booked = || Ok(store.all::<Payment>()?.len() == ids.len());
    let is_booked = member::until(&bus, &life, is_booked).await?;
    let admin = bus.admin()?;
    let begun = bus.elapsed();
    while bus.elapsed().saturating_sub(begun) < AFTERMATH {
        look(&*admin, &ledger).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    life.stop(Duration::from_secs(30)).await;
    let is_settled = is_booked && ledger.restart(&bus, GROUP, TOPIC).await?;
    observer.report(is_settled, ledger.broken()).await
}

/// What the group has committed now, it has committed for certain.
async fn look(admin: &dyn Admin, ledger: &Ledger) -> Result<()> {
    let offsets = patiently(|| admin.group_offsets(GROUP)).await?;
    let committed = offsets.into_iter().map(|offset| (offset.topic_partition, offset.committed));
    ledger.committed(&committed.collect::<Vec<_>>());
    Ok(())
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
            session_timeout: Duration::from_secs(2),
            enable_auto_commit: true,
            enable_auto_offset_store: false,
            auto_commit_interval: Duration::from_secs(1),
            ..member::config(self.name, GROUP)
        })?;
        consumer.subscribe(Subscription::topics([TOPIC]))?;
        while let Some(records) = member::polled(&*consumer, &life).await? {
            for record in &records {
                self.handle(&*consumer, record).await?;
            }
        }
        consumer.close().await
    }

    async fn handle(&self, consumer: &dyn Consumer, record: &Record) -> Result<()> {
        member::insert_once(&self.store, &Payment(value(record))).await?;
        self.crash_points.reach(self.name, BOOKED_NOT_STORED).await;
        match consumer.store_offsets(&[(record.topic_partition(), record.next_offset())]) {
            // It is another member's now, which gets the record once more.
            Err(error) if error.kind() == ErrorKind::InvalidState => {}
            outcome => outcome?,
        }
        self.crash_points.reach(self.name, STORED_NOT_COMMITTED).await;
        Ok(())
    }
}

const BETWEEN_PAYMENTS: Duration = Duration::from_millis(80);
/// How long the group is looked at when all is booked: until nothing goes wrong any more, every
/// member is back, and has committed what it has to.
const AFTERMATH: Duration = Duration::from_secs(14);
