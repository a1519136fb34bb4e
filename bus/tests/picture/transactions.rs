//! Another story to draw: a transaction that commits, and one that is aborted.

use bus::sim::{Sim, SimConfig, SimEvent};
use bus::{NewTopic, ProducerConfig, ProducerRecord, Result, TransactionConfig};

/// Runs the story.
pub(crate) fn tell(seed: u64) -> Result<Vec<SimEvent>> {
    let config = SimConfig { seed, record_events: true, ..Default::default() };
    let outcome = Sim::new(config)?.run(async |sim| {
        let bus = sim.bus();
        bus.admin()?.create_topic(NewTopic::new("orders")).await?;
        let transaction = TransactionConfig::new("billing");
        let producer = bus.transactional_producer(ProducerConfig::default(), transaction)?;
        producer.init_transactions().await?;
        producer.begin()?;
        drop(producer.send(ProducerRecord::to("orders").value("paid")));
        producer.commit().await?;
        producer.begin()?;
        drop(producer.send(ProducerRecord::to("orders").key("17")));
        producer.send(ProducerRecord::to("orders").value("null")).await?;
        producer.abort().await
    });
    match outcome.result {
        Ok(result) => result.map(|()| outcome.report.recorded),
        Err(stalled) => Err(bus::Error::new(bus::ErrorKind::Stalled, stalled.to_string())),
    }
}
