//! The bus on a real Kafka: the traits of bus-core on librdkafka.

mod admin;
mod bus;
mod config;
mod consumer;
mod context;
mod error;
mod ffi;
mod metadata;
mod offload;
mod producer;

use std::time::Duration;

use bus_core::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::task::JoinError;

pub use bus::{KafkaBus, connect};
pub use consumer::NativeConsumer;
pub use context::Context;
pub use producer::{NativeProducer, ProducerContext, Ticket};

/// How long an operation waits for brokers where the contract gives it no time.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a call that blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    runtime: &Handle,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    runtime.spawn_blocking(call).await.map_err(blocking_failed)
}

fn blocking_failed(error: JoinError) -> Error {
    Error::new(ErrorKind::Backend, "the runtime shut down before the call was done")
        .with_source(error)
}
