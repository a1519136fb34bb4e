//! The application: producers, and members of a group that commit after handling; in processes
//! that can be crashed, paused, and restarted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus_check::history::{Handled, History};
use bus_check::{CommitMode, Environment, Judgment, Recorder, judge};
use bus_core::{
    Assignor, Bus, Consumer, ConsumerConfig, NewTopic, Polled, Producer, ProducerConfig,
    ProducerRecord, RebalanceKind, Recovery, Result, Subscription,
};
use bus_sim::{Mutation, Sim, SimConfig, SimHandle};

/// What is done to the world in the middle of a run.
pub type Faults = fn(&SimHandle, u32);

/// A run of the application.
#[derive(Clone)]
pub struct Run {
    pub seed: u64,
    pub mutation: Option<Mutation>,
    pub records: u32,
    pub members: u32,
    pub assignors: Vec<Assignor>,
    pub producer: ProducerConfig,
    pub consumer: ConsumerConfig,
    /// Called at each of ten steps of a second.
    pub faults: Faults,
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
            faults: |_, _| {},
        }
    }
}

impl Run {
    /// The conditions under which its history is judged.
    pub fn environment(&self) -> Environment {
        Environment {
            commits: CommitMode::AfterHandling,
            settling: Duration::from_secs(20),
            ..Environment::safe()
        }
    }

    /// Runs, and judges.
    pub fn judge(&self) -> (History, Judgment) {
        let history = self.history();
        let judgment = judge(&history, &self.environment());
        (history, judgment)
    }

    /// Runs, and gives the history.
    pub fn history(&self) -> History {
        let config = SimConfig {
            seed: self.seed,
            mutation: self.mutation,
            time_limit: Duration::from_hours(1),
            event_limit: 3_000_000,
            ..Default::default()
        };
        let recorder = Recorder::new();
        let (run, written) = (self.clone(), recorder.clone());
        let outcome = Sim::new(config)
            .expect("a valid configuration")
            .run(|sim| async move { run.play(sim, written).await });
        match outcome.result {
            Ok(Ok(())) => {}
            other => println!("the run ended with {other:?}"),
        }
        recorder.history()
    }

    async fn play(self, sim: SimHandle, recorder: Recorder) -> Result<()> {
        let raw = sim.bus();
        let bus = recorder.record(&raw);
        bus.admin()?.create_topic(NewTopic::new("orders").partitions(4)).await?;
        for n in 0..self.members {
            let (recorder, run) = (recorder.clone(), self.clone());
            bus.process(&format!("member-{n}"), move |bus| {
                member(bus, recorder.clone(), run.consumer.clone(), run.assignors.clone())
            });
        }
        for n in 0..2 {
            let run = self.clone();
            bus.process(&format!("publisher-{n}"), move |bus| publish(bus, run.clone(), n));
        }
        for step in 0..10 {
            (self.faults)(&sim, step);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        sim.heal();
        recorder.quiesced(&raw);
        tokio::time::sleep(Duration::from_secs(60)).await;
        recorder.audit(&raw).await
    }
}

async fn publish(bus: Bus, run: Run, publisher: u32) {
    let Ok(producer) = bus.producer(run.producer) else { return };
    let mut deliveries = Vec::new();
    for n in 0..run.records {
        let record = ProducerRecord::to("orders")
            .key(format!("key-{}", n % 17))
            .value(format!("{publisher}:{n}"));
        deliveries.push(producer.send(record));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(producer.flush().await);
    for delivery in deliveries {
        // What failed is in the history.
        drop(delivery.await);
    }
    drop(producer.close(Duration::from_secs(5)).await);
}

async fn member(bus: Bus, recorder: Recorder, config: ConsumerConfig, assignors: Vec<Assignor>) {
    loop {
        let config = ConsumerConfig { assignors: assignors.clone(), ..config.clone() };
        let Ok(consumer) = bus.consumer(config) else { return };
        if consumer.subscribe(Subscription::topics(["orders"])).is_err() {
            return;
        }
        consume(&recorder, &consumer).await;
    }
}

async fn consume(recorder: &Recorder, consumer: &Arc<dyn Consumer>) {
    let Some(handling) = recorder.handling(consumer) else { return };
    loop {
        match consumer.poll(Duration::from_millis(200)).await {
            Ok(Polled::Records(records)) => {
                let mut done = BTreeMap::new();
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
                drop(guard.complete().await);
            }
            Err(error) if error.recovery() == Recovery::Close => return,
            Err(_) => {}
        }
    }
}
