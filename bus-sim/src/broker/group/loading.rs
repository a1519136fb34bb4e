//! How a shard learns what is in its partition of `__consumer_offsets` when it takes over.
//!
//! Groups are as the last record says, replicated or not. Offsets that are not below the high
//! watermark count once they are: nobody shall read one that can still be lost.

use bus_core::Offset;

use super::record::GroupRecord;
use super::writes::Uncommitted;
use super::{InTransaction, Shard, Then, Write};
use crate::protocol::batch::StoredBatch;
use crate::protocol::write_txn_markers::Marker;
use crate::time::SimTime;

impl Shard {
    /// One that knows nothing yet.
    pub(in crate::broker) fn loading() -> Self {
        Self { is_loading: true, ..Self::default() }
    }

    /// Whether it has loaded all, and all that it wrote is replicated.
    pub(in crate::broker) fn is_at_rest(&self) -> bool {
        !self.is_loading && self.uncommitted.is_empty()
    }

    /// Replays a batch while the coordinator loads.
    pub(in crate::broker) fn load(
        &mut self,
        now: SimTime,
        stored: &StoredBatch,
        high_watermark: Offset,
    ) {
        if stored.next_offset() > high_watermark {
            self.load_uncommitted(now, stored);
            return;
        }
        let StoredBatch { base_offset, batch, .. } = stored;
        let producer_id = batch.producer.map(|producer| producer.producer_id);
        if let (Some(control), Some(producer_id)) = (batch.control, producer_id) {
            self.replay_end(producer_id, control);
            return;
        }
        let records = (*base_offset..).zip(batch.records.iter());
        for (recorded, record) in records {
            let Some(record) = GroupRecord::decode(record) else { continue };
            match producer_id.filter(|_| batch.is_transactional) {
                Some(producer_id) => self.replay_pending(now, producer_id, recorded, record),
                None => self.replay(now, recorded, record),
            }
        }
    }

    fn load_uncommitted(&mut self, now: SimTime, stored: &StoredBatch) {
        let batch = &stored.batch;
        let mut records = Vec::new();
        for (recorded, record) in (stored.base_offset..).zip(batch.records.iter()) {
            match GroupRecord::decode(record) {
                Some(record @ GroupRecord::Group { .. }) => self.replay(now, recorded, record),
                Some(record) => records.push(record),
                None => {}
            }
        }
        let transaction = batch.producer.filter(|_| batch.is_transactional).map(|producer| {
            let (producer_id, producer_epoch) = (producer.producer_id, producer.producer_epoch);
            match batch.control {
                None => InTransaction::Offsets((producer_id, producer_epoch)),
                Some(control) => InTransaction::End(Marker {
                    producer_id,
                    producer_epoch,
                    control,
                    coordinator_epoch: batch.coordinator_epoch().unwrap_or(-1),
                    is_version_2: false,
                    partitions: Vec::new(),
                }),
            }
        });
        let write = Write { records, transaction, then: Then::Nothing };
        self.uncommitted.push_back(Uncommitted::loaded(stored.next_offset(), write));
    }
}
