//! The application: producers, and members of a group that commit after handling; in processes
//! that can be crashed, paused, and restarted.

pub(crate) mod faults;
mod ledger;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bus_check::history::{Handled, History};
use bus_check::{Cluster, CommitMode, Environment, Recorder, Report, judge, sim};
use bus_core::{
    Assignor, Bus, Consumer, ConsumerConfig, ConsumerExt as _, NewTopic, OffsetReset, Polled,
    ProducerConfig, ProducerRecord, RebalanceKind, Recovery, Result, StartAt, Subscription,
    Timestamp, TopicPartition,
};
use bus_sim::{BrokerConfig, Mutation, Sim, SimConfig, SimHandle};

pub(crate) use faults::{cluster, network, processes, quiet, zombies};

/// What is done to the world in the middle of a run.
pub(crate) type Faults = fn(&SimHandle, u32);

/// A run of the application.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) records: u32,
    pub(crate) members: u32,
    pub(crate) assignors: Vec<Assignor>,
    pub(crate) producer: ProducerConfig,
    pub(crate) consumer: ConsumerConfig,
    /// Called at each of ten steps of a second.
    pub(crate) faults: Faults,
    pub(crate) brokers: i32,
    pub(crate) min_insync_replicas: u32,
    pub(crate) application: Application,
    /// Whether somebody asks for the ends of the logs all the time.
    pub(crate) asks: bool,
    /// Whether somebody asks all the time what transactions have committed.
    pub(crate) is_observed: bool,
    /// How long a member takes to give up its partitions.
    pub(crate) revocation: Duration,
    /// A known bug of librdkafka 2.12: an abort gives sequences out again.
    pub(crate) abort_reuses_sequences: bool,
}

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Application {
    /// Producers, and members of groups.
    Group,
    /// Transactional producers, alone and from topic to topic.
    Ledger,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            seed: 0,
            mutation: None,
            records: 200,
            members: 2,
            assignors: vec![Assignor::Range],
            producer: ProducerConfig::default(),
            consumer: ConsumerConfig {
                session_timeout: Duration::from_secs(2),
                heartbeat_interval: Duration::from_millis(200),
                max_poll_interval: Duration::from_secs(5),
                max_poll_records: 10,
                fetch_max_wait: Duration::from_millis(100),
                ..ConsumerConfig::in_group("g")
            },
            faults: quiet,
            brokers: 1,
            min_insync_replicas: 1,
            application: Application::Group,
            asks: false,
            is_observed: false,
            revocation: Duration::ZERO,
            abort_reuses_sequences: false,
        }
    }
}

impl Run {
    /// The conditions under which its history is judged.
    pub(crate) fn environment(&self) -> Environment {
        let commits = match self.application {
            Application::Group => CommitMode::AfterHandling,
            Application::Ledger => CommitMode::Transactional,
        };
        Environment {
            commits,
            min_insync_replicas: self.min_insync_replicas,
            settling: Duration::from_secs(20),
            ..Environment::safe()
        }
    }

    /// Runs, and judges by all that is known.
    pub(crate) fn judge(&self) -> (History, Report) {
        let (history, cluster) = self.record();
        let report = judge(&history, &self.environment(), &cluster);
        (history, report)
    }

    /// Runs, and gives what clients saw and what happened inside.
    pub(crate) fn record(&self) -> (History, Cluster) {
        let config = SimConfig {
            seed: self.seed,
            brokers: self.brokers,
            broker: BrokerConfig {
                min_insync_replicas: self.min_insync_replicas as usize,
                replica_lag_time_max: Duration::from_millis(1_500),
                broker_session_timeout: Some(Duration::from_secs(1)),
                broker_heartbeat_interval: Some(Duration::from_millis(200)),
                ..BrokerConfig::default()
            },
            mutation: self.mutation,
            abort_reuses_sequences: self.abort_reuses_sequences,
            record_facts: true,
            time_limit: Duration::from_hours(1),
            event_limit: 300_000,
            ..Default::default()
        };
        let recorder = match self.application {
            Application::Group => Recorder::default(),
            Application::Ledger => Recorder::with_cause_header(ledger::CAUSE),
        };
        let (run, written) = (self.clone(), recorder.clone());
        let simulation = Sim::new(config).expect("a valid configuration");
        let run = || simulation.run(|sim| async move { run.play(sim, written).await });
        // A planted bug may break an assertion: what came before is judged.
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(run)) else {
            return (recorder.history(), Cluster::new());
        };
        let is_over = matches!(outcome.result, Ok(Ok(())));
        assert!(is_over || self.mutation.is_some(), "the run ended with {:?}", outcome.result);
        (recorder.history(), sim::cluster(&outcome.report))
    }

    async fn play(self, sim: SimHandle, recorder: Recorder) -> Result<()> {
        let bus = recorder.record(&sim.bus());
        let admin = bus.admin()?;
        if self.application == Application::Ledger {
            let trouble = (self.faults, self.is_observed);
            return ledger::play(&sim, &bus, &recorder, trouble).await;
        }
        admin.create_topic(NewTopic::new("orders").partitions(PARTITIONS)).await?;
        for n in 0..self.members {
            let (recorder, run) = (recorder.clone(), self.clone());
            bus.process(&format!("member-{n}"), move |bus| {
                member(bus, recorder.clone(), run.clone())
            });
        }
        for n in 0..2 {
            let run = self.clone();
            bus.process(&format!("publisher-{n}"), move |bus| publish(bus, run.clone(), n));
        }
        bus.process("reader", read);
        if self.asks {
            bus.process("asker", ask);
        }
        let group = |name: &str| ConsumerConfig {
            group_id: Some(name.to_owned()),
            ..self.consumer.clone()
        };
        let auto = ConsumerConfig {
            enable_auto_commit: true,
            auto_commit_interval: Duration::from_millis(500),
            max_poll_records: 1,
            ..group("auto")
        };
        bus.process("auto", move |bus| tail(bus, auto.clone()));
        let latest = ConsumerConfig { auto_offset_reset: OffsetReset::Latest, ..group("latest") };
        for step in 0..10 {
            (self.faults)(&sim, step);
            if step == 5 {
                let latest = latest.clone();
                bus.process("latecomer", move |bus| tail(bus, latest.clone()));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            for group in ["g", "auto"] {
                // While a broker is down, it can't be asked.
                drop(admin.group_offsets(group).await);
            }
        }
        sim.heal();
        recorder.quiesced();
        tokio::time::sleep(Duration::from_secs(70)).await;
        // What comes after a long silence must arrive too.
        publish(bus.clone(), Self { records: 20, ..self }, 2).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        recorder.audit().await
    }
}

const PARTITIONS: i32 = 4;

async fn publish(bus: Bus, run: Run, publisher: u32) {
    let Ok(producer) = bus.producer(run.producer) else { return };
    let mut deliveries = Vec::new();
    for n in 0..run.records {
        let name = format!("{publisher}:{n}:{}", bus.new_id());
        deliveries.push(producer.send(record(n, &name)));
        if n % 10 == 9 && n + 1 < run.records {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
    if publisher != 2 {
        drop(producer.flush().await);
    }
    drop(producer.close(Duration::from_secs(5)).await);
    deliveries.push(producer.send(record(0, "after the close")));
    for delivery in deliveries {
        // What failed is in the history.
        drop(delivery.await);
    }
}

/// Records of all kinds, each with its name in it.
fn record(n: u32, name: &str) -> ProducerRecord {
    let record = ProducerRecord::to("orders").key(format!("key-{}", n % 17));
    match n % 8 {
        // A tombstone.
        0 => record.header("name", name.to_owned()),
        1 => record.value([&[0xff, 0xfe][..], name.as_bytes()].concat()),
        2 => record.value(name.to_owned()).timestamp(Timestamp::from_millis(1_000 + i64::from(n))),
        3 if n % 16 == 3 => {
            let mut value = vec![b'x'; 70_000];
            value.extend_from_slice(name.as_bytes());
            record.value(value)
        }
        _ => record.value(name.to_owned()).header("n", n.to_string()),
    }
}

async fn member(bus: Bus, recorder: Recorder, run: Run) {
    loop {
        let config = ConsumerConfig { assignors: run.assignors.clone(), ..run.consumer.clone() };
        let Ok(consumer) = bus.consumer(config) else { return };
        if consumer.subscribe(Subscription::topics(["orders"])).is_err() {
            return;
        }
        consume(&recorder, &consumer, run.revocation).await;
    }
}

async fn consume(recorder: &Recorder, consumer: &Arc<dyn Consumer>, revocation: Duration) {
    let Some(handling) = recorder.handling(consumer) else { return };
    loop {
        match consumer.poll(Duration::from_millis(200)).await {
            Ok(Polled::Records(records)) => {
                let mut done = BTreeMap::new();
                if !records.is_empty() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                for record in &records {
                    handling.start(record);
                    done.insert(record.topic_partition(), record.next_offset().into());
                    handling.end(record, Handled::Done);
                }
                if !done.is_empty() {
                    let done: Vec<_> = done.into_iter().collect();
                    // A commit that fails leads to a duplicate, which is permitted.
                    drop(consumer.commit(&done).await);
                }
            }
            Ok(Polled::Rebalance(guard)) => {
                if guard.kind() == RebalanceKind::Assigned && !guard.partitions().is_empty() {
                    drop(consumer.committed(guard.partitions()).await);
                }
                if guard.kind() == RebalanceKind::Revoked && !revocation.is_zero() {
                    tokio::time::sleep(revocation).await;
                }
                drop(guard.complete().await);
            }
            Err(error) if error.recovery() == Recovery::Close => return,
            Err(_) => {}
        }
    }
}

/// Polls one by one, and leaves the commits to the client.
async fn tail(bus: Bus, config: ConsumerConfig) {
    let Ok(consumer) = bus.consumer(config) else { return };
    if consumer.subscribe(Subscription::topics(["orders"])).is_err() {
        return;
    }
    loop {
        // The next poll tells what to do about an error.
        drop(consumer.poll_records(Duration::from_millis(300)).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads all partitions by hand, pausing and seeking now and then.
async fn read(bus: Bus) {
    let config = ConsumerConfig { max_poll_records: 7, ..Default::default() };
    let Ok(consumer) = bus.consumer(config) else { return };
    let places: Vec<_> =
        (0..PARTITIONS).map(|partition| TopicPartition::new("orders", partition)).collect();
    let from: Vec<_> = places.iter().map(|place| (place.clone(), StartAt::Beginning)).collect();
    if consumer.assign(&from).is_err() {
        return;
    }
    for n in 0_u32.. {
        drop(consumer.poll(Duration::from_millis(200)).await);
        let place = &places[n as usize % places.len()];
        match n % 40 {
            10 => drop(consumer.pause(std::slice::from_ref(place))),
            18 => drop(consumer.resume(&places)),
            25 | 29 if n < 200 => {
                drop(consumer.seek(place, StartAt::Offset(i64::from(n) / 20)).await);
            }
            _ => {}
        }
    }
}

/// Asks for the ends of all partitions, and goes back to their beginning now and then.
async fn ask(bus: Bus) {
    let Ok(consumer) = bus.consumer(ConsumerConfig::default()) else { return };
    let places: Vec<_> =
        (0..PARTITIONS).map(|partition| TopicPartition::new("orders", partition)).collect();
    for n in 0_u32.. {
        for place in &places {
            drop(consumer.watermarks(place).await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if n % 100 == 99 {
            let from: Vec<_> =
                places.iter().map(|place| (place.clone(), StartAt::Offset(0))).collect();
            if consumer.assign(&from).is_err() {
                return;
            }
            drop(consumer.poll_records(Duration::from_millis(200)).await);
        }
    }
}
