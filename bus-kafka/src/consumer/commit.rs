//! Commits: they go out with the call, and their replies resolve the futures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Commit, CommitSender, Error, ErrorKind, Offset, OffsetAndMetadata, Operation, Result,
    TopicPartition,
};
use parking_lot::Mutex;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;

use super::core::{Core, Native, fatal, to_list};
use super::place::{add, find};
use super::validate_both;
use crate::ffi::consumer as requests;
use crate::ffi::{self, Event, EventKind, Failure};
use crate::{OPERATION_TIMEOUT, blocking};

/// The commits that wait for their reply.
#[derive(Debug)]
pub(crate) struct Replies {
    waiting: Mutex<Waiting>,
    arrived: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: usize,
    senders: BTreeMap<usize, CommitSender>,
}

impl Replies {
    pub(crate) fn new() -> Self {
        Self { waiting: Mutex::default(), arrived: Arc::new(Notify::new()) }
    }

    /// What is notified when a reply arrives.
    pub(crate) fn arrived(&self) -> Arc<Notify> {
        Arc::clone(&self.arrived)
    }

    /// Starts the task that resolves commits as replies arrive. It ends with the consumer.
    pub(crate) fn resolve_in_background(&self, core: &Arc<Core>) {
        let (core, arrived) = (Arc::downgrade(core), self.arrived());
        let runtime = core.upgrade().map(|core| core.runtime.clone());
        let task = async move {
            loop {
                arrived.notified().await;
                let Some(core) = core.upgrade() else { break };
                let Ok(native) = core.native.client() else { break };
                core.replies.resolve(&core, &native);
            }
        };
        if let Some(runtime) = runtime {
            drop(runtime.spawn(task));
        }
    }

    /// Resolves the commits whose replies are there.
    pub(crate) fn resolve(&self, core: &Core, native: &Native) {
        while let Some(event) = native.replies.poll(Duration::ZERO) {
            let EventKind::Commit { id } = event.kind() else { continue };
            let sender = self.waiting.lock().senders.remove(&id);
            let outcome = outcome(core, native, &event);
            let kind = outcome.as_ref().err().map(Error::kind);
            if let Some(ErrorKind::UnknownMemberId | ErrorKind::IllegalGeneration) = kind {
                core.evicted();
            }
            if let Some(sender) = sender {
                sender.complete(outcome);
            }
        }
    }

    /// Fails what has no reply and will get none.
    pub(crate) fn abandon(&self) {
        self.waiting.lock().senders.clear();
        self.arrived.notify_one();
    }
}

/// Sends a commit.
pub(crate) fn commit(core: &Core, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Commit {
    let named = |error: Error| core.in_group(error).with_operation(Operation::Commit);
    match send(core, offsets) {
        Ok(commit) => commit,
        Err(error) => Commit::done(Err(named(error))),
    }
}

fn send(core: &Core, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<Commit> {
    core.check_open()?;
    check_group(core)?;
    for (topic_partition, OffsetAndMetadata { offset, .. }) in offsets {
        validate_both(topic_partition, *offset)?;
    }
    if offsets.is_empty() {
        return Ok(Commit::done(Ok(())));
    }
    let native = core.native.client()?;
    let list = ffi::commit_list(offsets);
    let (sender, commit) = Commit::channel();
    // Under the lock, so that commits of several threads go out in the order of their ids.
    let mut waiting = core.replies.waiting.lock();
    let id = waiting.next;
    waiting.next = waiting.next.wrapping_add(1);
    waiting.senders.insert(id, sender);
    if let Err(failure) = requests::commit(native.client(), &list, &native.replies, id) {
        waiting.senders.remove(&id);
        return Err(failure.into_error());
    }
    Ok(commit)
}

/// What a reply says: an error of the whole, or of one partition.
fn outcome(core: &Core, native: &Native, event: &Event) -> Result<()> {
    let list = event.list();
    let part = list.iter().find_map(|listed| Some((listed, listed.error?)));
    let error = match (event.failure(), part) {
        (None, None) => return Ok(()),
        (Some(failure), _) if failure.code.known() == Some(RDKafkaErrorCode::Fatal) => {
            fatal(native)
        }
        (_, Some((listed, code))) => {
            code.error("").with_topic_partition(listed.topic_partition.clone())
        }
        (Some(Failure { code, message }), None) => code.error(message),
    };
    Err(core.in_group(error).with_operation(Operation::Commit))
}

/// Stores offsets for the next auto commit.
pub(crate) fn store_offsets(core: &Core, offsets: &[(TopicPartition, Offset)]) -> Result<()> {
    core.check_open()?;
    if core.config.enable_auto_offset_store {
        let message = "offsets are stored automatically; set enable.auto.offset.store=false";
        return Err(Error::new(ErrorKind::InvalidState, message));
    }
    let native = core.native.client()?;
    let state = core.state.lock();
    let mut list = rdkafka::TopicPartitionList::with_capacity(offsets.len());
    for (topic_partition, offset) in offsets {
        validate_both(topic_partition, *offset)?;
        state.place(topic_partition)?;
        add(&mut list, topic_partition, rdkafka::Offset::Offset(*offset));
    }
    requests::store_offsets(native.client(), &list).map_err(Failure::into_error)
}

/// Asks the coordinator for committed offsets.
pub(crate) async fn committed(
    core: &Core,
    partitions: Vec<TopicPartition>,
) -> Result<Vec<Option<OffsetAndMetadata>>> {
    core.check_open()?;
    check_group(core)?;
    partitions.iter().try_for_each(TopicPartition::validate)?;
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let native = core.native.client()?;
    let list = to_list(&partitions);
    let look_up = move || requests::committed(native.client(), &list, OPERATION_TIMEOUT);
    let found = blocking(&core.runtime, look_up)
        .await?
        .map_err(|failure| core.in_group(failure.into_error()))?;
    partitions
        .iter()
        .map(|topic_partition| {
            let listed = find(&found, topic_partition)?;
            let committed = (listed.offset >= 0).then(|| OffsetAndMetadata {
                offset: listed.offset,
                metadata: listed.metadata.clone(),
            });
            Ok(committed)
        })
        .collect()
}

fn check_group(core: &Core) -> Result<()> {
    match core.config.group_id {
        Some(_) => Ok(()),
        None => Err(Error::new(
            ErrorKind::InvalidConfig,
            "property group.id is needed for this; ConsumerConfig::in_group sets it",
        )),
    }
}
