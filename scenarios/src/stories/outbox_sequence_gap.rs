//! `outbox-sequence-gap` (A12): a relay that reads its outbox by number, and passes a row that is
//! not there yet.
//!
//! Two order services write each order and its event, numbered by a sequence, in one transaction. A
//! relay publishes the events behind its cursor, and moves it on. But a number is taken before the
//! commit: where the transaction of number 7 is slow, the relay sees 8, moves its cursor to it, and
//! never comes back for 7. The fix is to read only up to the first number that an open transaction
//! has.
//!
//! See Eventuous#222 and eugene-khyst/postgresql-event-sourcing#2 and #16.

use std::time::Duration;

use bus_core::{Bus, NewTopic, ProducerConfig, ProducerExt as _, ProducerRecord, Result, Topic};
use serde::{Deserialize, Serialize};

use super::common::{processes, value};
use super::member;
use super::read_back::report;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::crash_points::CrashPoints;
use crate::lifecycle::Lifecycle;
use crate::patience::create_topic;
use crate::report::{Broken, Observer, Report};
use crate::setting::Setting;
use crate::store::{Row, Store};

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "outbox-sequence-gap",
    title: "A relay that reads its outbox by number, and passes a late commit",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |_| "brokers=1",
        faults: &["PauseProcess", "CrashProcess", "CrashBroker", "LoseResponse", "DelayCommit"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, form, setting| Box::pin(run(bus, form, setting)),
};

/// The guarantee that the bug breaks: one of the application.
pub const GUARANTEE: &str = "committed orders are published";

/// The processes that take orders.
pub const SERVICES: [&str; 2] = ["orders-1", "orders-2"];
/// The process that publishes them.
pub const RELAY: &str = "relay";
/// The number of the event is taken, and the order not committed.
pub const NUMBERED_NOT_COMMITTED: &str = "orders: numbered, not yet committed";
/// Events are published, and the cursor is before them.
pub const PUBLISHED_NOT_PASSED: &str = "relay: published, not yet passed";

const TOPIC: &str = "orders";
const SEQUENCE: &str = "outbox";
/// So many are placed at each service.
const ORDERS: usize = 12;

/// An order; its row is that of its event, too.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: String,
    number: u64,
}

impl Row for Order {
    const TABLE: &'static str = "orders";

    fn key(&self) -> String {
        self.id.clone()
    }
}

/// The number of the last event that the relay has published.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Cursor(u64);

impl Row for Cursor {
    const TABLE: &'static str = "cursor";

    fn key(&self) -> String {
        String::new()
    }
}

/// Places orders, has them published, and looks which of them are not in the topic when the relay
/// has passed all.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, form: Form, setting: Setting) -> Result<Report> {
    let crash_points = setting.crash_points.clone();
    create_topic(&bus, NewTopic::new(TOPIC)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), "").await?;
    let (store, life) = (Store::default(), Lifecycle::default());
    let orders = setting.size("orders", 1..=ORDERS);
    let mut all = 0;
    for name in processes(&setting, &SERVICES) {
        let service = Service {
            name,
            orders,
            store: store.used_by(name, &setting.commits),
            life: life.clone(),
            crash_points: crash_points.clone(),
        };
        life.process(&bus, name, move |_| service.clone().place_orders());
        all += orders;
    }
    let relay_store = store.used_by(RELAY, &setting.commits);
    let relay = Relay { form, store: relay_store, crash_points };
    let life_inside = life.clone();
    life.process(&bus, RELAY, move |bus| relay.clone().publish(bus, life_inside.clone()));
    let is_settled = all_passed(&bus, &store, all, &life).await?;
    let published: Vec<_> = member::read_back(&bus, TOPIC).await?.iter().map(value).collect();
    let missing = store.all::<Order>()?.into_iter().filter(|order| !published.contains(&order.id));
    let broken: Vec<_> = missing
        .map(|Order { id, number }| Broken {
            guarantee: GUARANTEE,
            sentence: format!("{id} is committed as number {number}, and was never published"),
        })
        .collect();
    Ok(report(is_settled, broken, observer.partitions().await?))
}

/// Waits until so many orders are committed and the relay has passed them, then ends the processes.
async fn all_passed(bus: &Bus, store: &Store, count: usize, life: &Lifecycle) -> Result<bool> {
    let begun = bus.elapsed();
    loop {
        life.check()?;
        let orders = store.all::<Order>()?;
        let last = orders.iter().map(|order| order.number).max().unwrap_or(0);
        let is_done = orders.len() == count && cursor(store)? >= last;
        if is_done || bus.elapsed().saturating_sub(begun) > DEADLINE {
            life.stop(Duration::from_secs(30)).await;
            return Ok(is_done);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn cursor(store: &Store) -> Result<u64> {
    Ok(store.all::<Cursor>()?.first().map_or(0, |cursor| cursor.0))
}

/// A process that takes orders.
#[derive(Clone, Debug)]
struct Service {
    name: &'static str,
    orders: usize,
    store: Store,
    life: Lifecycle,
    crash_points: CrashPoints,
}

impl Service {
    /// Places its orders, one after the other, but for those that are there already.
    async fn place_orders(self) -> Result<()> {
        for n in 1..=self.orders {
            let id = format!("{}-{n:02}", self.name);
            let mut transaction = self.store.begin();
            if transaction.find::<Order>(&id)?.is_some() {
                continue;
            }
            let number = transaction.next_of(SEQUENCE);
            transaction.insert(&Order { id, number })?;
            self.crash_points.reach(self.name, NUMBERED_NOT_COMMITTED).await;
            member::commit_new(transaction).await?;
            let pause = tokio::time::sleep(BETWEEN_ORDERS);
            if self.life.unless_stopping(pause).await.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// The process that publishes.
#[derive(Clone, Debug)]
struct Relay {
    form: Form,
    store: Store,
    crash_points: CrashPoints,
}

impl Relay {
    async fn publish(self, bus: Bus, life: Lifecycle) -> Result<()> {
        let producer = bus.producer(ProducerConfig::default())?;
        while !life.is_stopping() {
            let mut transaction = self.store.begin();
            let cursor = transaction.find::<Cursor>("")?.unwrap_or_default().0;
            let orders = self.behind(cursor)?;
            let Some(last) = orders.last().map(|order| order.number) else {
                life.unless_stopping(tokio::time::sleep(PAUSE)).await;
                continue;
            };
            let records = orders.iter().map(|order| {
                ProducerRecord::to(TOPIC).key(order.id.clone()).value(order.id.clone())
            });
            for sent in producer.send_all(records.collect::<Vec<_>>()).await {
                sent?;
            }
            self.crash_points.reach(RELAY, PUBLISHED_NOT_PASSED).await;
            transaction.update(&Cursor(last))?;
            member::commit_new(transaction).await?;
        }
        producer.close(Duration::from_secs(10)).await
    }

    /// The events behind the cursor, in the order of their numbers.
    fn behind(&self, cursor: u64) -> Result<Vec<Order>> {
        let end = match self.form {
            Form::AsWritten => u64::MAX,
            // Looked up before the rows: what is decided by now is seen.
            Form::Sound => self.store.decided_before(SEQUENCE),
        };
        let mut orders = self.store.all::<Order>()?;
        orders.retain(|order| cursor < order.number && order.number < end);
        orders.sort_by_key(|order| order.number);
        Ok(orders)
    }
}

/// Orders come from people.
const BETWEEN_ORDERS: Duration = Duration::from_millis(150);
/// How long the relay waits when there is nothing behind its cursor.
const PAUSE: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_mins(2);
