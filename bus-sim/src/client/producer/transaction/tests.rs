//! The machine with answers from a script: what it sends, in which order, and how it classes what
//! comes back.

use std::time::Duration;

use bus_core::{
    Delivery, ErrorKind, GroupMetadata, OffsetAndMetadata, Recovery, Result, TopicPartition,
};

use super::{State, TransactionSettings};
use crate::client::producer::Producer;
use crate::client::producer::script::{Outcome, Script, delivered, identity, produced};
use crate::protocol::{
    Request, Response, add_offsets_to_txn, add_partitions_to_txn, end_txn, find_coordinator,
    init_producer_id, txn_offset_commit,
};

impl Script {
    fn new(is_version_2: bool) -> Self {
        let settings = TransactionSettings {
            id: "t".into(),
            timeout: Duration::from_mins(1),
            is_version_2,
            reuses_sequences: true,
        };
        Self::of(|identity, config| Producer::transactional(identity, config, settings, 1, None))
    }

    /// A producer that can begin.
    fn ready() -> Self {
        let mut script = Self::new(false);
        let outcome = script.call(Producer::init_transactions);
        script.answer(found(1));
        script.answer(identity(5, 0));
        assert!(taken(&outcome).is_ok());
        script
    }

    /// A producer with one record in a transaction, whose partition is registered.
    fn with_record() -> (Self, Delivery) {
        let mut script = Self::ready();
        script.begin().unwrap();
        let delivery = script.send();
        script.answer_metadata();
        script.pass(Duration::from_millis(1));
        script.answer(partitions(None));
        (script, delivery)
    }

    fn begin(&mut self) -> Result<()> {
        let begun = self.producer.begin_transaction(self.now, &mut self.effects);
        self.settle();
        begun
    }

    fn state(&self) -> State {
        self.producer.transaction.as_ref().map(|transaction| transaction.state).unwrap()
    }
}

fn taken(outcome: &Outcome) -> Result<()> {
    outcome.lock().unwrap().take().expect("the call is over")
}

fn is_waiting(outcome: &Outcome) -> bool {
    outcome.lock().unwrap().is_none()
}

fn found(broker: i32) -> Response {
    Response::FindCoordinator(find_coordinator::Response { result: Ok(broker) })
}

fn no_identity(kind: ErrorKind) -> Response {
    Response::InitProducerId(init_producer_id::Response { result: Err(kind) })
}

fn partitions(error: Option<ErrorKind>) -> Response {
    let partitions = vec![(TopicPartition::new("a", 0), error)];
    Response::AddPartitionsToTxn(add_partitions_to_txn::Response { partitions })
}

fn ended(result: Result<(i64, i16), ErrorKind>) -> Response {
    Response::EndTxn(end_txn::Response { result })
}

fn assert_error(result: Result<()>, kind: ErrorKind, recovery: Recovery) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.recovery()), (kind, recovery), "{error}");
}

#[test]
fn a_transaction_registers_sends_and_commits() {
    let (mut script, delivery) = Script::with_record();
    let Request::Produce(request) = script.request() else { panic!("{:?}", script.requests) };
    assert_eq!(request.transactional_id.as_deref(), Some("t"));
    assert!(request.partitions[0].batch.is_transactional);
    let commit = script.call(Producer::commit_transaction);
    assert_eq!(script.state(), State::BeginCommit);
    script.answer(produced(Ok(0)));
    assert!(delivered(delivery).is_ok());
    assert!(matches!(script.request(), Request::EndTxn(end) if end.is_commit));
    assert!(is_waiting(&commit));
    script.answer(ended(Ok((5, 0))));
    assert!(taken(&commit).is_ok());
    assert_eq!(script.state(), State::Ready);
}

#[test]
fn an_empty_transaction_asks_nobody() {
    let mut script = Script::ready();
    script.begin().unwrap();
    assert!(taken(&script.call(Producer::commit_transaction)).is_ok());
    script.begin().unwrap();
    assert!(taken(&script.call(Producer::abort_transaction)).is_ok());
    assert!(script.requests.is_empty());
}

#[test]
fn calls_out_of_order_are_refused() {
    let mut script = Script::new(false);
    let refused = |result| assert_error(result, ErrorKind::InvalidState, Recovery::Fix);
    refused(script.begin());
    refused(taken(&script.call(Producer::commit_transaction)));
    refused(delivered(script.send()).map(drop));
    let mut script = Script::ready();
    refused(taken(&script.call(Producer::init_transactions)));
    refused(taken(&script.call(Producer::commit_transaction)));
    refused(taken(&script.call(Producer::abort_transaction)));
    refused(delivered(script.send()).map(drop));
    script.begin().unwrap();
    refused(script.begin());
}

#[test]
fn a_producer_id_is_asked_for_until_the_coordinator_gives_one() {
    use ErrorKind as E;
    let mut script = Script::new(false);
    let init = script.call(Producer::init_transactions);
    script.answer(found(1));
    for kind in [E::ConcurrentTransactions, E::CoordinatorLoadInProgress] {
        script.answer(no_identity(kind));
        assert!(script.requests.is_empty());
        script.pass(Duration::from_millis(500));
    }
    script.answer(no_identity(E::NotCoordinator));
    script.pass(Duration::from_millis(500));
    script.answer(found(2));
    script.answer(identity(5, 3));
    assert!(taken(&init).is_ok());
}

#[test]
fn init_that_runs_out_of_time_can_be_resumed() {
    let mut script = Script::new(false);
    let init = script.call(Producer::init_transactions);
    script.answer(found(1));
    script.pass(Duration::from_secs(30));
    assert_error(taken(&init), ErrorKind::TimedOut, Recovery::Retry);
    assert_error(script.begin(), ErrorKind::InvalidState, Recovery::Retry);
    script.answer(identity(5, 0));
    assert_eq!(script.state(), State::ReadyNotAcked);
    assert!(taken(&script.call(Producer::init_transactions)).is_ok());
    script.begin().unwrap();
}

#[test]
fn a_fenced_producer_refuses_everything() {
    let (mut script, delivery) = Script::with_record();
    script.answer(produced(Err(ErrorKind::InvalidProducerEpoch)));
    let fenced = |result| assert_error(result, ErrorKind::ProducerFenced, Recovery::Close);
    fenced(delivered(delivery).map(drop));
    fenced(delivered(script.send()).map(drop));
    fenced(taken(&script.call(Producer::commit_transaction)));
    fenced(taken(&script.call(Producer::abort_transaction)));
    fenced(taken(&script.call(Producer::init_transactions)));
    fenced(script.begin());
    assert!(script.requests.is_empty());
}

#[test]
fn a_failed_delivery_must_be_aborted_without_another_epoch() {
    let (mut script, delivery) = Script::with_record();
    script.answer(produced(Err(ErrorKind::MessageTooLarge)));
    let too_large = |result| assert_error(result, ErrorKind::MessageTooLarge, Recovery::Abort);
    too_large(delivered(delivery).map(drop));
    assert_error(delivered(script.send()).map(drop), ErrorKind::InvalidState, Recovery::Abort);
    too_large(taken(&script.call(Producer::commit_transaction)));
    let abort = script.call(Producer::abort_transaction);
    assert!(matches!(script.request(), Request::EndTxn(end) if !end.is_commit));
    script.answer(ended(Ok((5, 0))));
    assert!(taken(&abort).is_ok());
    script.begin().unwrap();
}

#[test]
fn lost_sequences_need_another_epoch_after_the_abort() {
    let (mut script, delivery) = Script::with_record();
    script.answer(produced(Err(ErrorKind::UnknownProducerId)));
    assert!(delivered(delivery).is_err());
    let commit = taken(&script.call(Producer::commit_transaction));
    assert_error(commit, ErrorKind::UnknownProducerId, Recovery::Abort);
    let abort = script.call(Producer::abort_transaction);
    script.answer(ended(Ok((5, 0))));
    assert!(is_waiting(&abort));
    let Request::InitProducerId(request) = script.request() else { panic!("no new epoch") };
    assert_eq!(request.current, Some((5, 0)));
    script.answer(identity(5, 1));
    assert!(taken(&abort).is_ok());
    assert_eq!(script.state(), State::Ready);
}

#[test]
fn the_classes_of_refused_partitions() {
    use ErrorKind as E;
    for (kind, state) in [
        (E::ConcurrentTransactions, State::InTransaction),
        (E::NotCoordinator, State::InTransaction),
        (E::ProducerFenced, State::FatalError),
        (E::InvalidTxnState, State::FatalError),
        (E::InvalidProducerIdMapping, State::AbortableError),
        (E::TopicAuthorizationFailed, State::AbortableError),
    ] {
        let mut script = Script::ready();
        script.begin().unwrap();
        let delivery = script.send();
        script.answer_metadata();
        script.pass(Duration::from_millis(1));
        script.answer(partitions(Some(kind)));
        assert_eq!(script.state(), state, "{kind}");
        if state == State::AbortableError {
            let error = delivered(delivery).unwrap_err();
            assert_eq!((error.kind(), error.recovery()), (E::Purged, Recovery::Abort));
        }
    }
}

#[test]
fn the_classes_of_a_refused_end() {
    use ErrorKind as E;
    for (kind, recovery, state) in [
        (E::ProducerFenced, Recovery::Close, State::FatalError),
        (E::InvalidTxnState, Recovery::Close, State::FatalError),
        (E::InvalidProducerIdMapping, Recovery::Abort, State::AbortableError),
        (E::UnknownServerError, Recovery::Abort, State::AbortableError),
    ] {
        let (mut script, _delivery) = Script::with_record();
        script.answer(produced(Ok(0)));
        let commit = script.call(Producer::commit_transaction);
        script.answer(ended(Err(kind)));
        let error = taken(&commit).unwrap_err();
        assert_eq!((error.kind(), error.recovery()), (kind, recovery));
        assert_eq!(
            error.is_indeterminate(),
            kind.effect() == bus_core::Effect::Unknown || recovery == Recovery::Close
        );
        assert_eq!(script.state(), state, "{kind}");
    }
}

#[test]
fn a_commit_is_asked_for_until_it_has_an_answer() {
    use ErrorKind as E;
    let (mut script, _delivery) = Script::with_record();
    script.answer(produced(Ok(0)));
    let commit = script.call(Producer::commit_transaction);
    script.answer(ended(Err(E::ConcurrentTransactions)));
    script.pass(Duration::from_millis(100));
    script.answer(ended(Err(E::NotCoordinator)));
    script.pass(Duration::from_millis(500));
    script.answer(found(2));
    script.pass(Duration::from_secs(1));
    script.answer(ended(Ok((5, 0))));
    assert!(taken(&commit).is_ok());
}

#[test]
fn a_commit_that_runs_out_of_time_can_only_be_resumed() {
    let (mut script, _delivery) = Script::with_record();
    script.answer(produced(Ok(0)));
    let commit = script.call(Producer::commit_transaction);
    script.pass(Duration::from_secs(30));
    assert_error(taken(&commit), ErrorKind::TimedOut, Recovery::Retry);
    let abort = taken(&script.call(Producer::abort_transaction));
    assert_error(abort, ErrorKind::InvalidState, Recovery::Retry);
    script.answer(ended(Ok((5, 0))));
    assert_eq!(script.state(), State::CommitNotAcked);
    assert!(taken(&script.call(Producer::commit_transaction)).is_ok());
    assert_eq!(script.state(), State::Ready);
}

#[test]
fn offsets_go_to_both_coordinators() {
    let mut script = Script::ready();
    script.begin().unwrap();
    let offsets = [(TopicPartition::new("in", 0), OffsetAndMetadata::from(7))];
    let group = GroupMetadata {
        group_id: "g".into(),
        generation: 3,
        member_id: "m".into(),
        group_instance_id: None,
        native: None,
    };
    let sent = script.call(|producer, now, reply, effects| {
        producer.send_offsets(now, &offsets, &group, reply, effects);
    });
    script.answer(Response::AddOffsetsToTxn(add_offsets_to_txn::Response { error: None }));
    script.answer(found(1));
    let Request::TxnOffsetCommit(request) = script.request() else { panic!("no offsets") };
    assert_eq!((request.generation, &*request.member_id), (3, "m"));
    let refused = |error| {
        let partitions = vec![(TopicPartition::new("in", 0), error)];
        Response::TxnOffsetCommit(txn_offset_commit::Response { partitions })
    };
    script.answer(refused(Some(ErrorKind::CoordinatorLoadInProgress)));
    script.pass(Duration::from_millis(500));
    script.answer(refused(Some(ErrorKind::IllegalGeneration)));
    assert_error(taken(&sent), ErrorKind::IllegalGeneration, Recovery::Abort);
    assert_eq!(script.state(), State::AbortableError);
}

#[test]
fn version_2_tells_no_partitions_and_takes_the_epoch_of_the_end() {
    let mut script = Script::new(true);
    let init = script.call(Producer::init_transactions);
    script.answer(found(1));
    script.answer(identity(5, 0));
    assert!(taken(&init).is_ok());
    for epoch in 0..2 {
        script.begin().unwrap();
        let _delivery = script.send();
        if epoch == 0 {
            script.answer_metadata();
        }
        script.pass(Duration::from_millis(1));
        let Request::Produce(request) = script.request() else { panic!("{:?}", script.requests) };
        assert!(request.is_version_2);
        let stamp = request.partitions[0].batch.producer.unwrap();
        assert_eq!((stamp.producer_epoch, stamp.base_sequence), (epoch, 0));
        script.answer(produced(Ok(0)));
        let commit = script.call(Producer::commit_transaction);
        script.answer(ended(Ok((5, epoch + 1))));
        assert!(taken(&commit).is_ok());
    }
}
