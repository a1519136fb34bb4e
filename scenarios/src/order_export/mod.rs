//! Order export: confirmed orders are exported to an external platform.
//!
//! ```text
//! OrderService.confirmOrder ─▶ database ─▶ order-export ─▶ OrderExportUseCase ─▶ platform
//!                                          3 partitions    3 consumers
//! ```
//! The invariant: every confirmed order reaches the platform, and no unconfirmed one does; in the
//! sound form exactly once.
//!
//! - **As written**, the service publishes after the database has committed. A crash between the
//!   two loses the export for ever: the order is confirmed, and nobody remembers that it has to be
//!   exported. So does a commit whose answer is lost: the customer asks again, and the order is
//!   confirmed already. And a consumer that crashes before its commit exports twice.
//! - **Sound**, the event is a row of the transaction that confirms the order (the outbox), a relay
//!   publishes it at least once, and the platform recognizes an event by its id.
//!
//! Reading order: [`order`], [`order_service`], [`outbox`], [`export_consumer`], [`platform`], then
//! the judge. On a Kafka that keeps the topic, one run at a time: runs share the group.

pub mod export_consumer;
mod judge;
pub mod order;
pub mod order_service;
pub mod outbox;
pub mod platform;
pub mod requests;

use std::time::Duration;

use bus_core::{Bus, NewTopic, Result, Topic};

use crate::catalogue::Form;
use crate::commits::Commits;
use crate::crash_points::CrashPoints;
use crate::lifecycle::Lifecycle;
use crate::patience::create_topic;
use crate::report::{Observer, Report};
use crate::setting::Setting;
use crate::store::Store;
use export_consumer::{ExportConsumer, OrderExportUseCase};
use judge::End;
use order::{Order, OrderId};
use order_service::OrderService;
use outbox::OutboxRow;
use platform::FakeExternalPlatformClient;
use requests::ConfirmRequests;

/// The topic.
pub const TOPIC: &str = "order-export";
/// The group.
pub const GROUP: &str = "order-export-consumer";
/// How many partitions the topic has, and how many consumers the group.
pub const PARTITIONS: i32 = 3;

/// The database of the order service and the relay.
pub const DATABASE: &str = "shop";

/// The process of the order service.
pub const ORDER_SERVICE: &str = "order-service";
/// The process of the relay; in the sound form only.
pub const OUTBOX_RELAY: &str = "outbox-relay";
/// The processes of the consumers.
pub const EXPORT_CONSUMERS: [&str; 3] =
    ["export-consumer-1", "export-consumer-2", "export-consumer-3"];

/// The crash points, each named by what has happened and what has not.
pub mod point {
    use crate::catalogue::Form;

    /// The order service has not committed the order yet.
    pub const NOT_COMMITTED: &str = "order-service: not committed";
    /// As written: the order is confirmed, and nothing but this process knows of the event.
    pub const COMMITTED_NOT_PUBLISHED: &str = "order-service: committed, not yet published";
    /// As written: the event is in the topic, and the customer has no answer.
    pub const PUBLISHED_NOT_ANSWERED: &str = "order-service: published, not yet answered";
    /// Sound: order and outbox are committed, and the customer has no answer.
    pub const COMMITTED_NOT_ANSWERED: &str = "order-service: committed, not yet answered";
    /// The relay has read the outbox.
    pub const READ_NOT_PUBLISHED: &str = "outbox-relay: read, not yet published";
    /// The relay's events are in the topic, and in the outbox too.
    pub const PUBLISHED_NOT_DELETED: &str = "outbox-relay: published, not yet deleted";
    /// A consumer has a record.
    pub const RECEIVED_NOT_EXPORTED: &str = "export-consumer: received, not yet exported";
    /// The platform has the order, and the group has not committed it.
    pub const EXPORTED_NOT_COMMITTED: &str = "export-consumer: exported, not yet committed";
    /// The record is done.
    pub const COMMITTED: &str = "export-consumer: committed";

    /// All crash points of a form, in the order in which an order passes them.
    pub const fn all(form: Form) -> &'static [&'static str] {
        match form {
            Form::AsWritten => &[
                NOT_COMMITTED,
                COMMITTED_NOT_PUBLISHED,
                PUBLISHED_NOT_ANSWERED,
                RECEIVED_NOT_EXPORTED,
                EXPORTED_NOT_COMMITTED,
                COMMITTED,
            ],
            Form::Sound => &[
                NOT_COMMITTED,
                COMMITTED_NOT_ANSWERED,
                READ_NOT_PUBLISHED,
                PUBLISHED_NOT_DELETED,
                RECEIVED_NOT_EXPORTED,
                EXPORTED_NOT_COMMITTED,
                COMMITTED,
            ],
        }
    }
}

/// What the order export guarantees.
pub mod guarantee {
    /// Every confirmed order reaches the platform.
    pub const EXPORTED: &str = "confirmed orders are exported";
    /// No other order does.
    pub const CONFIRMED: &str = "only confirmed orders are exported";
    /// In the sound form, none does twice.
    pub const ONCE: &str = "orders are exported once";
}

/// How to run the order export.
#[derive(Clone, Debug)]
pub struct OrderExport {
    /// The form.
    pub form: Form,
    /// How many orders are confirmed. 30: each partition gets about ten.
    pub confirmed: usize,
    /// How many orders are placed and never confirmed. 5.
    pub unconfirmed: usize,
    /// How many consumers there are. 3.
    pub consumers: usize,
    /// How long the whole may take until it counts as stalled. 2 minutes: a few session timeouts.
    pub deadline: Duration,
    /// Who decides what happens at crash points.
    pub crash_points: CrashPoints,
    /// Who decides what comes of commits at the database.
    pub commits: Commits,
}

impl OrderExport {
    /// The default run of a form.
    pub fn in_form(form: Form) -> Self {
        Self {
            form,
            confirmed: 30,
            unconfirmed: 5,
            consumers: EXPORT_CONSUMERS.len(),
            deadline: Duration::from_mins(2),
            crash_points: CrashPoints::default(),
            commits: Commits::default(),
        }
    }

    /// The same in a setting, which may ask for less work.
    #[must_use]
    pub fn of(self, setting: &Setting) -> Self {
        Self {
            confirmed: setting.size("orders", 1..=self.confirmed),
            unconfirmed: setting.size("unconfirmed orders", 0..=self.unconfirmed),
            consumers: setting.size("consumers", 1..=self.consumers),
            crash_points: setting.crash_points.clone(),
            commits: setting.commits.clone(),
            ..self
        }
    }
}

/// What outlives every process of a run.
#[derive(Debug, Default)]
struct World {
    store: Store,
    platform: FakeExternalPlatformClient,
    requests: ConfirmRequests,
}

/// Runs the order export once, and judges what came of it.
///
/// # Errors
/// Those that no process can get over: a person must fix them.
pub async fn run(bus: Bus, config: OrderExport) -> Result<Report> {
    create_topic(&bus, NewTopic::new(TOPIC).partitions(PARTITIONS)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), GROUP).await?;
    let world = place_orders(&bus, &config).await?;
    let life = Lifecycle::default();
    start_processes(&bus, &config, &world, &life);

    let begun = bus.elapsed();
    let mut settled_at = None;
    let end = loop {
        life.check()?;
        let now = bus.elapsed();
        if is_settled(&world, &observer).await? {
            let settled_at = *settled_at.get_or_insert(now);
            let is_sure = now.saturating_sub(settled_at) > OLD_NEWS;
            if is_sure || judge::is_complete(&world)? {
                break End::Settled;
            }
        } else {
            settled_at = None;
        }
        if now.saturating_sub(begun) > config.deadline {
            break End::OutOfTime;
        }
        let is_waiting = settled_at.is_some();
        tokio::time::sleep(if is_waiting { 20 * LOOK_AGAIN } else { LOOK_AGAIN }).await;
    };

    if end == End::Settled {
        observer.settled(STOP_TIMEOUT).await?;
    }
    let partitions = observer.partitions().await?;
    let group = observer.group(&partitions).await?;
    life.stop(STOP_TIMEOUT).await;
    judge::judge(&config, &world, end, partitions, group)
}

async fn place_orders(bus: &Bus, config: &OrderExport) -> Result<World> {
    let store = Store::named(DATABASE);
    // On a Kafka that keeps the topic, orders of earlier runs have other ids.
    let run = bus.new_id().simple().to_string();
    let run = &run[run.len() - 4..];
    let id = |n: usize| -> OrderId { format!("order-{run}-{n:02}") };
    let mut transaction = store.begin();
    for n in 1..=config.confirmed + config.unconfirmed {
        transaction.insert(&Order::new(id(n), 1_000 * n as u64))?;
    }
    transaction.commit().await?;
    let requests = ConfirmRequests::new((1..=config.confirmed).map(id));
    Ok(World { store, platform: FakeExternalPlatformClient::default(), requests })
}

fn start_processes(bus: &Bus, config: &OrderExport, world: &World, life: &Lifecycle) {
    let (form, crash_points) = (config.form, &config.crash_points);
    for name in EXPORT_CONSUMERS.into_iter().take(config.consumers) {
        let consumer = ExportConsumer {
            name: name.to_owned(),
            use_case: OrderExportUseCase::new(world.platform.clone(), form),
            crash_points: crash_points.clone(),
        };
        let life_inside = life.clone();
        life.process(bus, name, move |bus| consumer.clone().run(bus, life_inside.clone()));
    }
    if form == Form::Sound {
        let store = world.store.used_by(OUTBOX_RELAY, &config.commits);
        let crash_points = crash_points.clone();
        let life_inside = life.clone();
        life.process(bus, OUTBOX_RELAY, move |bus| {
            outbox::relay(bus, store.clone(), crash_points.clone(), life_inside.clone())
        });
    }
    let store = world.store.used_by(ORDER_SERVICE, &config.commits);
    let requests = world.requests.clone();
    let (crash_points, life_inside) = (crash_points.clone(), life.clone());
    life.process(bus, ORDER_SERVICE, move |bus| {
        let service = OrderService::new(bus, store.clone(), form, crash_points.clone());
        let (requests, life) = (requests.clone(), life_inside.clone());
        async move { order_service::serve(service?, requests, life).await }
    });
}

/// Whether nothing is under way any more: every customer has an answer, the outbox is empty, and
/// the group has committed all of the topic. The order counts: each looks further down the stream.
async fn is_settled(world: &World, observer: &Observer) -> Result<bool> {
    if world.requests.open() > 0 || !world.store.all::<OutboxRow>()?.is_empty() {
        return Ok(false);
    }
    let partitions = observer.partitions().await?;
    Ok(observer.lag(&partitions).await? == 0)
}

/// For how long a leader that is cut off may tell of an old end of its log: as long as a cut lasts.
/// Before an order counts as lost, nothing must have been under way for longer than that.
const OLD_NEWS: Duration = Duration::from_secs(35);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
