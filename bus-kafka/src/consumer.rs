//! The consumer: librdkafka's queue of events under the contract's `poll`.
//!
//! - `core.rs`: what all parts share, and the look at the queue that `poll` is made of;
//! - `state.rs`: which partitions there are, and where each is;
//! - `rebalance.rs`: the guard and its answer;
//! - `place.rs`: where partitions start, and seeking;
//! - `commit.rs`: commits and their replies;
//! - `membership.rs`: subscribing, assigning, leaving, closing.
//!
//! No code of the application runs inside librdkafka: its callbacks only wake who waits.

mod commit;
mod core;
mod membership;
mod place;
mod rebalance;
mod state;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bus_core::consumer::validate_offset;
use bus_core::{
    BoxFuture, Commit, Consumer, Error, GroupMetadata, Offset, OffsetAndMetadata, Operation,
    Polled, Result, StartAt, Subscription, Timestamp, TopicPartition, Watermarks,
};
use futures_util::FutureExt as _;
use tokio::runtime::Handle;

use self::core::Core;
pub use self::core::NativeConsumer;
use crate::config::Consumer as Config;
use crate::ffi::consumer as requests;

/// A consumer on Kafka.
pub(crate) struct KafkaConsumer {
    core: Arc<Core>,
}

impl KafkaConsumer {
    /// Makes a consumer.
    pub(crate) fn new(config: &Config, runtime: Handle) -> Result<Self> {
        Ok(Self { core: Core::new(config, runtime)? })
    }
}

impl Consumer for KafkaConsumer {
    fn subscribe(&self, subscription: Subscription) -> Result<()> {
        membership::subscribe(&self.core, &subscription).map_err(named(Operation::Subscribe))
    }

    fn unsubscribe(&self) -> BoxFuture<'_, Result<()>> {
        async { membership::unsubscribe(&self.core).await.map_err(named(Operation::Subscribe)) }
            .boxed()
    }

    fn assign(&self, partitions: &[(TopicPartition, StartAt)]) -> Result<()> {
        membership::assign(&self.core, partitions).map_err(named(Operation::Assign))
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.core.fatal();
        self.core.state.lock().assignment.keys().cloned().collect()
    }

    fn poll(&self, timeout: Duration) -> BoxFuture<'_, Result<Polled>> {
        async move { self.core.poll(timeout).await.map_err(named(Operation::Poll)) }.boxed()
    }

    fn seek<'a>(
        &'a self,
        topic_partition: &'a TopicPartition,
        to: StartAt,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            place::seek(&self.core, topic_partition, to).await.map_err(named(Operation::Seek))
        }
        .boxed()
    }

    fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.core.pause(partitions, true).map_err(named(Operation::Pause))
    }

    fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.core.pause(partitions, false).map_err(named(Operation::Pause))
    }

    fn paused(&self) -> Vec<TopicPartition> {
        self.core.fatal();
        self.core.state.lock().paused()
    }

    fn commit(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Commit {
        commit::commit(&self.core, offsets)
    }

    fn store_offsets(&self, offsets: &[(TopicPartition, Offset)]) -> Result<()> {
        commit::store_offsets(&self.core, offsets).map_err(named(Operation::StoreOffsets))
    }

    fn committed<'a>(
        &'a self,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Vec<Option<OffsetAndMetadata>>>> {
        async {
            commit::committed(&self.core, partitions.to_vec())
                .await
                .map_err(named(Operation::Committed))
        }
        .boxed()
    }

    fn position(&self, topic_partition: &TopicPartition) -> Result<Option<Offset>> {
        self.core.check_open().map_err(named(Operation::Position))?;
        let state = self.core.state.lock();
        let place = state.place(topic_partition).map_err(named(Operation::Position))?;
        Ok(place.position)
    }

    fn watermarks<'a>(
        &'a self,
        topic_partition: &'a TopicPartition,
    ) -> BoxFuture<'a, Result<Watermarks>> {
        async {
            place::watermarks(&self.core, topic_partition.clone())
                .await
                .map_err(named(Operation::Watermarks))
        }
        .boxed()
    }

    fn offsets_for_times<'a>(
        &'a self,
        times: &'a [(TopicPartition, Timestamp)],
    ) -> BoxFuture<'a, Result<Vec<Option<Offset>>>> {
        async {
            place::offsets_for_times(&self.core, times.to_vec())
                .await
                .map_err(named(Operation::OffsetsForTimes))
        }
        .boxed()
    }

    fn group_metadata(&self) -> Option<GroupMetadata> {
        let group_id = self.core.config.group_id.clone()?;
        let native = self.core.native.client().ok();
        let member = native.and_then(|native| requests::generation_and_member(native.client()));
        // Who is no member, and a closed consumer, is in no generation; librdkafka keeps the last.
        let member = member.filter(|(_, member_id)| !member_id.is_empty());
        let (generation, member_id) = member.unwrap_or((-1, String::new()));
        let group_instance_id = self.core.config.group_instance_id.clone();
        // librdkafka makes its own form from these fields, so there is nothing to carry along.
        Some(GroupMetadata { group_id, generation, member_id, group_instance_id, native: None })
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        membership::close(&self.core, membership::Farewell::Close);
        async { self.core.closed().await }.boxed()
    }

    fn native(&self) -> &dyn Any {
        &self.core.native
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        membership::close(&self.core, membership::Farewell::Drop);
    }
}

impl fmt::Debug for KafkaConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConsumer")
            .field("group_id", &self.core.config.group_id)
            .field("state", &*self.core.state.lock())
            .finish_non_exhaustive()
    }
}

/// Names the operation of an error.
fn named(operation: Operation) -> impl Fn(Error) -> Error {
    move |error| error.with_operation(operation)
}

/// Checks a partition and an offset of it.
pub(crate) fn validate_both(topic_partition: &TopicPartition, offset: Offset) -> Result<()> {
    topic_partition.validate()?;
    validate_offset(topic_partition, offset)
}
