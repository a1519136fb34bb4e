//! Produce: lost requests and responses, retries, and time-outs.

use std::time::Duration;

use bus_core::{Effect, ErrorKind, ProducerConfig, ProducerExt, TopicPartition};

use crate::cx::{Cx, quick_producer};
use crate::failure::{Verdict, refused};
use crate::fixture::{Api, Fault};
use crate::oracle::Law;
use crate::{ensure, ensure_eq};

/// An idempotent producer that retries because a response was lost appends the record once, and is
/// told the offset of the first append.
pub async fn retry_is_no_duplicate(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let producer = cx.bus().producer(impatient())?;
    producer.send(cx.record(&place)).await?;
    for expected in 1..4 {
        cx.inflict(&Fault::LoseResponse(Api::Produce))?;
        let sent = producer.send(cx.record(&place)).await?;
        ensure_eq!(sent.offset, Some(expected), "the offset of the first append");
    }
    ensure_eq!(cx.read(&place, 4).await?.len(), 4, "each record is there once");
    Ok(())
}

/// Without idempotence a lost response makes a duplicate: the retry is appended again.
pub async fn without_idempotence_a_retry_is_a_duplicate(cx: Cx) -> Verdict {
    cx.excuse(Law::Duplicate, "idempotence is off, and a response is lost");
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let config = ProducerConfig { enable_idempotence: false, ..impatient() };
    let producer = cx.bus().producer(config)?;
    producer.send(cx.record(&place)).await?;
    cx.inflict(&Fault::LoseResponse(Api::Produce))?;
    let sent = producer.send(cx.record(&place)).await?;
    ensure_eq!(sent.offset, Some(2), "the offset of the second append");
    let values: Vec<_> = cx.read(&place, 3).await?.into_iter().map(|record| record.value).collect();
    ensure_eq!(values[1], values[2], "the record is there twice");
    Ok(())
}

/// A record whose request is lost is sent again.
pub async fn lost_request_is_retried(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let producer = cx.bus().producer(impatient())?;
    producer.send(cx.record(&place)).await?;
    cx.inflict(&Fault::LoseRequest(Api::Produce))?;
    let sent = producer.send(cx.record(&place)).await?;
    ensure_eq!(sent.offset, Some(1), "the record is there");
    Ok(())
}

/// With five requests in flight, a lost request or response changes neither order nor number.
pub async fn order_survives_losses_with_5_in_flight(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let producer = cx.bus().producer(ProducerConfig { batch_records: 1, ..impatient() })?;
    producer.send(cx.record(&place)).await?;
    for fault in [Fault::LoseRequest(Api::Produce), Fault::LoseResponse(Api::Produce)] {
        cx.inflict(&fault)?;
        let records: Vec<_> = (0..20).map(|_| cx.record(&place)).collect();
        for outcome in producer.send_all(records).await {
            outcome?;
        }
    }
    ensure_eq!(cx.read(&place, 41).await?.len(), 41, "each record is there once");
    Ok(())
}

/// A record whose outcome cannot be known fails with an error that says so: it is in the log.
pub async fn unknown_outcome_is_said(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let config = ProducerConfig { enable_idempotence: false, retries: 0, ..impatient() };
    let producer = cx.bus().producer(config)?;
    producer.send(cx.record(&place)).await?;
    cx.inflict(&Fault::LoseResponse(Api::Produce))?;
    let outcome = producer.send(cx.record(&place)).await;
    ensure!(
        outcome.as_ref().is_err_and(bus_core::Error::is_indeterminate),
        "the outcome is {outcome:?}; expected is an error of effect {:?}",
        Effect::Unknown
    );
    ensure_eq!(cx.read(&place, 2).await?.len(), 2, "the record is there");
    Ok(())
}

/// A record that never left the producer fails in time, and for certain.
pub async fn record_that_never_left_fails_for_certain(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let delivery_timeout = Duration::from_secs(2);
    cx.inflict(&Fault::CrashBrokers)?;
    // A producer of its own: one that has a connection cannot know what it still carried.
    let producer = cx.bus().producer(ProducerConfig { delivery_timeout, ..quick_producer() })?;
    let begin = cx.bus().elapsed();
    let outcome = producer.send(cx.record(&place)).await;
    let took = cx.bus().elapsed() - begin;
    cx.inflict(&Fault::RestartBrokers)?;
    let error = refused(outcome, ErrorKind::MessageTimedOut)?;
    ensure!(!error.is_indeterminate(), "it is certain that the record was not sent: {error}");
    ensure!(took < Duration::from_secs(10), "it took {took:?}; the time-out is 2 s");
    Ok(())
}

/// A producer that does not wait long for a response before it tries again.
fn impatient() -> ProducerConfig {
    ProducerConfig { request_timeout: Duration::from_secs(2), ..quick_producer() }
}
