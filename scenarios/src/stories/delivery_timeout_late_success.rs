//! `delivery-timeout-late-success` (P14): a delivery that ran out of time, and came to pass.
//!
//! A shop asks for a payment of each order. When a delivery fails because its time is up, that says
//! that nobody knows: the record may be under way still, or in the log with its acknowledgment
//! lost. In the buggy form the shop takes it for a failure and asks once more, with a request that
//! is new. Idempotence does not cover that: it is another record of another producer session. Both
//! are in the log, and the order is paid twice, though whoever pays leaves out what it has seen.
//! The fix: the id of the request is made once, with its order, and an attempt more is the same
//! request.
//!
//! See KIP-91 and KAFKA-5886 for what the delivery timeout means.

use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, NewTopic, ProducerConfig, ProducerRecord, Recovery,
    Result, Subscription, Topic,
};
use serde::{Deserialize, Serialize};

use super::common::{finished, value};
use super::member;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::lifecycle::Lifecycle;
use crate::patience::create_topic;
use crate::report::{Broken, Observer, Report};
use crate::setting::Setting;
use crate::store::{Row, Store};

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "delivery-timeout-late-success",
    title: "A delivery that ran out of time, and came to pass",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |_| "brokers=1",
        faults: &["DelayRequest", "CutProcess", "FreezeBroker"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, form, setting| Box::pin(run(bus, form, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "I5 effect applied twice";

/// The processes: who asks for payments, and who pays.
const SHOP: &str = "shop";
const PAYER: &str = "payments";
const TOPIC: &str = "payment-requests";
const GROUP: &str = "payments";
const ORDERS: usize = 20;
/// Between two orders.
const PACE: Duration = Duration::from_millis(300);
/// How long the shop waits for a delivery.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// An order whose payment was asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Asked(String);

impl Row for Asked {
    const TABLE: &'static str = "asked";

    fn key(&self) -> String {
        self.0.clone()
    }
}

/// A payment, by the request that asked for it.
#[derive(Debug, Serialize, Deserialize)]
struct Payment {
    request: String,
    order: String,
}

impl Row for Payment {
    const TABLE: &'static str = "payments";

    fn key(&self) -> String {
        self.request.clone()
    }
}

/// Has orders paid, and looks which of them were paid twice.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, form: Form, setting: Setting) -> Result<Report> {
    create_topic(&bus, NewTopic::new(TOPIC)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), GROUP).await?;
    let count = setting.size("orders", 1..=ORDERS);
    let (store, life) = (Store::default(), Lifecycle::default());
    let shop = Shop { form, count, store: store.used_by(SHOP, &setting.commits) };
    life.process(&bus, SHOP, move |bus| shop.clone().open(bus));
    let (payer, life_inside) = (store.used_by(PAYER, &setting.commits), life.clone());
    life.process(&bus, PAYER, move |bus| pay(bus, payer.clone(), life_inside.clone()));
    while store.all::<Asked>()?.len() < count && bus.elapsed() < DEADLINE {
        life.check()?;
        tokio::time::sleep(PACE).await;
    }
    let is_settled = finished(&bus, &observer, &life).await?;
    let payments = store.all::<Payment>()?;
    let of = |order: &str| payments.iter().filter(|payment| payment.order == order).count();
    let twice = orders(count).filter(|order| of(order) > 1);
    let broken = twice.map(|order| Broken {
        guarantee: GUARANTEE,
        sentence: format!("{order} was paid {} times", of(&order)),
    });
    observer.report(is_settled, broken.collect()).await
}

/// How long all orders may take.
const DEADLINE: Duration = Duration::from_mins(5);

fn orders(count: usize) -> impl Iterator<Item = String> {
    (1..=count).map(|n| format!("order-{n:02}"))
}

/// Asks for payments.
#[derive(Clone, Debug)]
struct Shop {
    form: Form,
    count: usize,
    store: Store,
}

impl Shop {
    async fn open(self, bus: Bus) -> Result<()> {
        let config = ProducerConfig { delivery_timeout: DELIVERY_TIMEOUT, ..Default::default() };
        let producer = bus.producer(config)?;
        for order in orders(self.count) {
            let mut transaction = self.store.begin();
            if transaction.find::<Asked>(&order)?.is_some() {
                continue;
            }
            let mut request = format!("request for {order}");
            let ask = |request: &str| {
                ProducerRecord::to(TOPIC).key(order.clone()).value(request.to_owned())
            };
            while let Err(error) = producer.send(ask(&request)).await {
                if error.recovery() == Recovery::Fix && !error.is_indeterminate() {
                    return Err(error);
                }
                if self.form == Form::AsWritten {
                    request = format!("request {} for {order}", bus.new_id());
                }
            }
            transaction.insert(&Asked(order))?;
            member::commit_new(transaction).await?;
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }
}

/// Pays each request once.
async fn pay(bus: Bus, store: Store, life: Lifecycle) -> Result<()> {
    let consumer = bus.consumer(ConsumerConfig::in_group(GROUP))?;
    consumer.subscribe(Subscription::topics([TOPIC]))?;
    while let Some(polled) =
        life.unless_stopping(consumer.poll_records(Duration::from_secs(1))).await
    {
        for record in polled? {
            let mut transaction = store.begin();
            let request = value(&record);
            if transaction.find::<Payment>(&request)?.is_none() {
                let order = record.key.as_deref().unwrap_or_default();
                let order = String::from_utf8_lossy(order).into_owned();
                transaction.insert(&Payment { request, order })?;
                member::commit_new(transaction).await?;
            }
            // If that fails, the record comes again.
            drop(consumer.commit_record(&record).await);
        }
    }
    consumer.close().await
}
