//! Transactional producers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Acks, GroupMetadata, OffsetAndMetadata, ProducerConfig, Result, TopicPartition,
    TransactionConfig, TransactionalProducer,
};

use super::Interpreter;
use super::produce::producer_config;
use crate::outcome::{Fault, Outcome};
use crate::program::{Behalf, ProducerSpec, TransactorStep};
use crate::slot::{Place, TransactorSlot};

const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Interpreter<'_> {
    pub(super) async fn transactor(
        &mut self,
        index: usize,
        slot: TransactorSlot,
        step: &TransactorStep,
    ) -> Outcome {
        if *step == TransactorStep::Reopen
            && let Some(old) = self.transactors.remove(&slot)
        {
            drop(old.close(CLOSE_TIMEOUT).await);
        }
        let producer = match self.open_transactor(slot) {
            Ok(producer) => producer,
            Err(error) => return Outcome::Failed(Fault::from(&error)),
        };
        match step {
            TransactorStep::Init => self.init(slot, &*producer).await,
            TransactorStep::Begin => Outcome::done(producer.begin()),
            TransactorStep::Send(sending) => {
                Outcome::Sent(self.send(index, &*producer, sending, Some(slot)).await)
            }
            TransactorStep::SendOffsets { offsets, group } => {
                let Some(group) = self.behalf(*group) else {
                    // A consumer without a group has nothing to send offsets for.
                    return Outcome::Membership(None);
                };
                let offsets = offsets.iter().map(|(place, offset)| {
                    (self.names.place(*place), OffsetAndMetadata::from(*offset))
                });
                let offsets: Vec<(TopicPartition, _)> = offsets.collect();
                Outcome::done(producer.send_offsets(&offsets, &group).await)
            }
            TransactorStep::Commit => self.end_transaction(slot, &*producer, true).await,
            TransactorStep::Abort => self.end_transaction(slot, &*producer, false).await,
            TransactorStep::Close => Outcome::done(producer.close(CLOSE_TIMEOUT).await),
            TransactorStep::Reopen => Outcome::Done,
        }
    }

    fn open_transactor(&mut self, slot: TransactorSlot) -> Result<Arc<dyn TransactionalProducer>> {
        if let Some(producer) = self.transactors.get(&slot) {
            return Ok(Arc::clone(producer));
        }
        let spec = self.program.transactor(slot);
        let config = producer_config(&ProducerSpec {
            acks: Acks::All,
            properties: spec.properties,
            ..Default::default()
        })?;
        let transaction = TransactionConfig {
            transactional_id: self.names.transactional_id(spec.id),
            transaction_timeout: Duration::from_millis(spec.timeout_ms.into()),
        };
        // Recovery from an aborted batch takes longer than a plain delivery.
        let config = ProducerConfig { delivery_timeout: Duration::from_secs(10), ..config };
        let producer = self.bus.transactional_producer(config, transaction)?;
        self.transactors.insert(slot, Arc::clone(&producer));
        Ok(producer)
    }

    /// Initializing aborts what an older producer of the same id left open.
    async fn init(
        &mut self,
        slot: TransactorSlot,
        producer: &dyn TransactionalProducer,
    ) -> Outcome {
        let id = self.program.transactor(slot).id;
        let same_id = |slot: &TransactorSlot| self.program.transactor(*slot).id == id;
        let left: Vec<_> = TransactorSlot::ALL.iter().copied().filter(same_id).collect();
        let expected = self.markers(&left).await;
        let result = producer.init_transactions().await;
        if result.is_ok() {
            self.await_ends(&expected).await;
            left.iter().for_each(|slot| self.ledger.end(*slot, false));
            self.find_unstable().await;
        }
        Outcome::done(result)
    }

    /// Markers are written after the coordinator has answered.
    async fn end_transaction(
        &mut self,
        slot: TransactorSlot,
        producer: &dyn TransactionalProducer,
        is_commit: bool,
    ) -> Outcome {
        let expected = self.markers(&[slot]).await;
        let result = if is_commit { producer.commit().await } else { producer.abort().await };
        if result.is_ok() {
            self.await_ends(&expected).await;
            self.ledger.end(slot, is_commit);
            self.find_unstable().await;
        }
        Outcome::done(result)
    }

    /// Consumers that waited for the end of a transaction go on.
    async fn find_unstable(&mut self) {
        let mut known_after = Duration::ZERO;
        for reader in self.consumers.values_mut().filter(|reader| !reader.is_closed) {
            known_after = known_after.max(reader.find_unstable().await);
        }
        tokio::time::sleep(known_after).await;
    }

    /// Where the partitions of open transactions end once the markers are in.
    async fn markers(&self, of: &[TransactorSlot]) -> BTreeMap<Place, i64> {
        let mut expected = BTreeMap::new();
        for place in of.iter().flat_map(|slot| self.ledger.open(*slot)) {
            if let Some(end) = self.end(place).await {
                expected.insert(place, end + 1);
            }
        }
        expected
    }

    fn behalf(&mut self, behalf: Behalf) -> Option<GroupMetadata> {
        let plain = |group_id, generation, member_id: &str| GroupMetadata {
            group_id,
            generation,
            member_id: member_id.to_owned(),
            group_instance_id: None,
            native: None,
        };
        match behalf {
            Behalf::Of(slot) => {
                self.open_consumer(slot).ok()?;
                self.consumers.get(&slot)?.consumer.group_metadata()
            }
            Behalf::Group(slot) => Some(plain(self.names.group(slot), -1, "")),
            Behalf::Stranger(slot) => Some(plain(self.names.group(slot), 7, "stranger")),
        }
    }
}
