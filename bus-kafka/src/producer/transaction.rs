//! Transactions: librdkafka's calls, which block, behind futures that may be dropped.
//!
//! A call runs on a blocking thread of the runtime to its end, whether its future is still there or
//! not. One call runs at a time; the one that runs, or has ended unseen, is kept until the next.

use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bus_core::{
    BoxFuture, Delivery, Error, ErrorKind, GroupMetadata, OffsetAndMetadata, Operation, Partition,
    Producer, ProducerRecord, Recovery, Result, Topic, TopicPartition, TransactionalProducer,
};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer as _};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::begun::Begun;
use super::{KafkaProducer, ProducerContext};
use crate::config::Producer as Config;
use crate::error::Code;
use crate::ffi::transaction::{self as requests, Class, Member, TransactionFailure};
use crate::{OPERATION_TIMEOUT, ffi};

/// A producer of transactions on Kafka.
#[derive(Debug)]
pub(crate) struct KafkaTransactionalProducer {
    producer: KafkaProducer,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a transaction was begun and neither committed nor aborted.
    is_open: bool,
    /// The newest call, until somebody has seen its outcome.
    call: Option<Call>,
    calls: u64,
}

impl State {
    /// Makes way for another call, unless one is under way.
    fn clear(&mut self) -> Result<()> {
        if let Some(call) = self.call.take_if(|call| call.is_running()) {
            let error = under_way(call.operation);
            self.call = Some(call);
            return Err(error);
        }
        self.call = None;
        Ok(())
    }
}

/// A call on a blocking thread.
#[derive(Clone, Debug)]
struct Call {
    id: u64,
    operation: Operation,
    outcome: watch::Receiver<Option<Result<()>>>,
}

impl Call {
    fn is_running(&self) -> bool {
        // The sender is gone without an outcome only if the runtime is.
        self.outcome.borrow().is_none() && self.outcome.has_changed().is_ok()
    }
}

impl KafkaTransactionalProducer {
    /// Makes a producer, which does nothing yet.
    pub(crate) fn new(config: &Config, runtime: Handle) -> Result<Self> {
        Ok(Self { producer: KafkaProducer::new(config, runtime)?, state: Arc::default() })
    }

    /// The client, unless the producer is closed.
    fn client(&self) -> Result<Arc<BaseProducer<ProducerContext>>> {
        self.producer.buffer.check_open()?;
        self.producer.native.producer()
    }

    /// Runs a call that may be resumed, or takes up the same call of a future that was dropped.
    async fn resume(&self, operation: Operation, request: Request) -> Result<()> {
        let call = {
            let client = self.client()?;
            let mut state = self.state.lock();
            match &state.call {
                Some(call) if call.operation == operation => call.clone(),
                _ => self.start(&mut state, operation, client, request)?,
            }
        };
        self.outcome(call).await
    }

    fn start(
        &self,
        state: &mut State,
        operation: Operation,
        client: Arc<BaseProducer<ProducerContext>>,
        request: Request,
    ) -> Result<Call> {
        state.clear()?;
        state.calls += 1;
        let (sender, outcome) = watch::channel(None);
        let call = Call { id: state.calls, operation, outcome };
        state.call = Some(call.clone());
        let state = Arc::clone(&self.state);
        drop(self.producer.runtime.spawn_blocking(move || {
            let began = Instant::now();
            let outcome = match operation {
                Operation::CommitTransaction => check_deliveries(&client),
                _ => Ok(()),
            };
            let left = OPERATION_TIMEOUT.saturating_sub(began.elapsed());
            let outcome = outcome.and_then(|()| perform(&client, operation, request, left));
            if operation == Operation::AbortTransaction
                && outcome.is_ok()
                && let Some(begun) = &client.context().begun
            {
                begun.clear_doubt();
            }
            let ends =
                matches!(operation, Operation::CommitTransaction | Operation::AbortTransaction);
            if ends && outcome.is_ok() {
                state.lock().is_open = false;
            }
            sender.send_replace(Some(outcome));
        }));
        Ok(call)
    }

    /// Waits for the outcome of a call. Whoever sees it first lets it be forgotten.
    async fn outcome(&self, mut call: Call) -> Result<()> {
        let outcome = match call.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => {
                let message = "the runtime shut down before the call was done";
                Err(Error::new(ErrorKind::Backend, message))
            }
        };
        self.state.lock().call.take_if(|newest| newest.id == call.id);
        outcome
    }

    fn begin_now(&self) -> Result<()> {
        let client = self.client()?;
        let mut state = self.state.lock();
        state.clear()?;
        requests::begin(client.client().native_client())
            .map_err(|failure| error(failure, Operation::BeginTransaction))?;
        state.is_open = true;
        Ok(())
    }

    async fn send_offsets_now(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
    ) -> Result<()> {
        let client = self.client()?;
        for (place, OffsetAndMetadata { offset, .. }) in offsets {
            crate::consumer::validate_both(place, *offset)?;
        }
        let member = Member::new(group).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "a name of the member contains a NUL byte")
        })?;
        let call = {
            let mut state = self.state.lock();
            if offsets.is_empty() {
                // librdkafka has nothing to say about it, so it does not look at its state either.
                state.clear()?;
                return check_in_transaction(&client, &state);
            }
            let list = ffi::commit_list(offsets);
            let request: Request = Box::new(move |client, timeout| {
                requests::send_offsets(client, &list, &member, timeout)
            });
            self.start(&mut state, Operation::SendOffsets, client, request)?
        };
        self.outcome(call).await
    }
}

/// What a call asks librdkafka.
type Request =
    Box<dyn FnOnce(&NativeClient, Duration) -> std::result::Result<(), TransactionFailure> + Send>;

/// Waits for the outcomes of all records, and refuses to commit if one may be missing, though
/// librdkafka takes it for delivered.
fn check_deliveries(producer: &BaseProducer<ProducerContext>) -> Result<()> {
    ffi::flush(producer.client().native_client(), OPERATION_TIMEOUT);
    if producer.context().begun.as_ref().is_some_and(Begun::has_doubt) {
        let message = "a record of the transaction may be missing";
        return Err(Error::new(ErrorKind::TransactionAbortable, message));
    }
    Ok(())
}

fn perform(
    producer: &BaseProducer<ProducerContext>,
    operation: Operation,
    request: Request,
    timeout: Duration,
) -> Result<()> {
    let was_fatal = producer.client().fatal_error().is_some();
    let outcome = request(producer.client().native_client(), timeout);
    outcome.map_err(|failure| {
        let is_fatal = failure.class == Class::Fatal;
        let error = error(failure, operation);
        // The broker may have refused only the repetition of a commit whose response was lost.
        if operation == Operation::CommitTransaction && is_fatal && !was_fatal {
            error.indeterminate()
        } else {
            error
        }
    })
}

/// The error of a transactional call: librdkafka says what may be done about it.
fn error(failure: TransactionFailure, operation: Operation) -> Error {
    let TransactionFailure { failure, class } = failure;
    let error = match failure.code.known() {
        // Deliveries of the transaction failed, each for a reason of its own.
        Some(RDKafkaErrorCode::Inconsistent) => {
            Error::new(ErrorKind::TransactionAbortable, failure.message)
        }
        _ => failure.into_error(),
    };
    let error = match class {
        Class::Fatal => error.with_recovery(Recovery::Close),
        Class::Abortable if error.kind() == ErrorKind::ProducerFenced => error,
        Class::Abortable => error.with_recovery(Recovery::Abort),
        Class::Retriable => error.with_recovery(Recovery::Retry),
        Class::None => error,
    };
    error.with_operation(operation)
}

/// The error of a delivery in a transaction: what failed is no part of it, so it must be aborted.
pub(super) fn failed_delivery(
    error: Error,
    producer: Option<&Weak<BaseProducer<ProducerContext>>>,
) -> Error {
    match error.kind() {
        // To a transactional producer it means that there is a newer one.
        ErrorKind::InvalidProducerEpoch => Error::new(ErrorKind::ProducerFenced, error.message()),
        // It was dropped because the producer cannot go on.
        ErrorKind::Purged | ErrorKind::Fatal => producer
            .and_then(Weak::upgrade)
            .and_then(|producer| producer.client().fatal_error())
            .map_or_else(
                || error.with_recovery(Recovery::Abort),
                |(code, reason)| fatal(code, reason),
            ),
        _ if error.recovery() == Recovery::Close => error,
        _ => error.with_recovery(Recovery::Abort),
    }
}

/// The error of every call on a producer that cannot go on.
pub(super) fn fatal(code: RDKafkaErrorCode, reason: String) -> Error {
    Code::from(code).error(reason).with_recovery(Recovery::Close)
}

fn check_in_transaction(client: &BaseProducer<ProducerContext>, state: &State) -> Result<()> {
    if let Some((code, reason)) = client.client().fatal_error() {
        return Err(fatal(code, reason));
    }
    if state.is_open {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidState, "no transaction is open; call `begin` first"))
}

fn under_way(operation: Operation) -> Error {
    let message = format!("{operation:?} is under way; its future was dropped, or is elsewhere");
    Error::new(ErrorKind::InvalidState, message).with_recovery(Recovery::Retry)
}

impl TransactionalProducer for KafkaTransactionalProducer {
    fn init_transactions(&self) -> BoxFuture<'_, Result<()>> {
        let request: Request = Box::new(requests::init);
        named(self.resume(Operation::InitTransactions, request), Operation::InitTransactions)
    }

    fn begin(&self) -> Result<()> {
        self.begin_now().map_err(|error| error.with_operation(Operation::BeginTransaction))
    }

    fn send_offsets<'a>(
        &'a self,
        offsets: &'a [(TopicPartition, OffsetAndMetadata)],
        group: &'a GroupMetadata,
    ) -> BoxFuture<'a, Result<()>> {
        let sent = self.send_offsets_now(offsets, group);
        let sent = sent.map(|sent| sent.map_err(|error| error.with_group_id(&group.group_id)));
        named(sent, Operation::SendOffsets)
    }

    fn commit(&self) -> BoxFuture<'_, Result<()>> {
        let request: Request = Box::new(requests::commit);
        named(self.resume(Operation::CommitTransaction, request), Operation::CommitTransaction)
    }

    fn abort(&self) -> BoxFuture<'_, Result<()>> {
        let request: Request = Box::new(requests::abort);
        named(self.resume(Operation::AbortTransaction, request), Operation::AbortTransaction)
    }
}

fn named<'a>(
    call: impl Future<Output = Result<()>> + Send + 'a,
    operation: Operation,
) -> BoxFuture<'a, Result<()>> {
    call.map(move |outcome| outcome.map_err(|error| error.with_operation(operation))).boxed()
}

impl Producer for KafkaTransactionalProducer {
    fn send(&self, record: ProducerRecord) -> Delivery {
        self.producer.enqueue(&record).unwrap_or_else(|error| {
            let state = self.state.lock();
            let is_running = state.call.as_ref().is_some_and(Call::is_running);
            let has_failed = error.kind() == ErrorKind::InvalidState && state.is_open;
            let error = if has_failed && !is_running {
                // librdkafka takes no records for it any more.
                error.with_recovery(Recovery::Abort)
            } else {
                error
            };
            Delivery::failed(error.with_operation(Operation::Send))
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<()>> {
        self.producer.ready()
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.producer.flush()
    }

    fn partitions_for(&self, topic: Topic) -> BoxFuture<'_, Result<Partition>> {
        self.producer.partitions_for(topic)
    }

    fn close(&self, timeout: Duration) -> BoxFuture<'_, Result<()>> {
        self.producer.close(timeout)
    }

    fn native(&self) -> &dyn Any {
        self.producer.native()
    }
}
