//! The bus on Kafka: connects, and makes the clients.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bus_core::{
    Admin, Backend, BoxFuture, Bus, BusUrl, Consumer, ConsumerConfig, Error, ErrorKind, Operation,
    ProcessStart, Producer, ProducerConfig, Result, Timestamp, TransactionConfig,
    TransactionalProducer, Uuid,
};
use tokio::runtime::Handle;

use crate::admin::{AdminClient, KafkaAdmin};
use crate::config::Options;
use crate::consumer::KafkaConsumer;
use crate::producer::{KafkaProducer, KafkaTransactionalProducer};

/// Connects to a Kafka.
///
/// Must be called inside a tokio runtime that has time enabled; tasks of the bus run on it. Every
/// option of the URL is a property of librdkafka, or `connect.timeout.ms`.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] for an option that no client has, or a value that it cannot have;
/// [`ErrorKind::AllBrokersDown`] if no broker answers within `connect.timeout.ms` (10 s);
/// [`ErrorKind::AuthenticationFailed`].
pub async fn connect(url: &BusUrl) -> Result<Bus> {
    let options = Options::parse(url).map_err(|error| error.with_operation(Operation::Connect))?;
    let runtime = Handle::try_current().map_err(|error| {
        Error::new(ErrorKind::InvalidState, "connect needs a tokio runtime: call it inside one")
            .with_operation(Operation::Connect)
            .with_source(error)
    })?;
    let admin = AdminClient::connect(&options, &runtime).await?;
    let inner = Inner { options, runtime, admin: Arc::new(admin), start: Instant::now() };
    Ok(Bus::new(Arc::new(KafkaBus { inner: Arc::new(inner) })))
}

/// The bus on Kafka; reached through [`Bus::native`]. Cheap to clone.
#[derive(Clone)]
pub struct KafkaBus {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    runtime: Handle,
    admin: Arc<AdminClient>,
    start: Instant,
}

impl Backend for KafkaBus {
    fn scheme(&self) -> &'static str {
        "kafka"
    }

    fn producer(&self, config: ProducerConfig) -> Result<Arc<dyn Producer>> {
        let config = self.inner.options.producer(config)?;
        Ok(Arc::new(KafkaProducer::new(&config, self.inner.runtime.clone())?))
    }

    fn transactional_producer(
        &self,
        config: ProducerConfig,
        transaction: TransactionConfig,
    ) -> Result<Arc<dyn TransactionalProducer>> {
        let config = self.inner.options.transactional_producer(config, &transaction)?;
        Ok(Arc::new(KafkaTransactionalProducer::new(&config, self.inner.runtime.clone())?))
    }

    fn consumer(&self, config: ConsumerConfig) -> Result<Arc<dyn Consumer>> {
        let config = self.inner.options.consumer(config)?;
        Ok(Arc::new(KafkaConsumer::new(&config, self.inner.runtime.clone())?))
    }

    fn admin(&self) -> Result<Arc<dyn Admin>> {
        Ok(Arc::new(KafkaAdmin::new(Arc::clone(&self.inner.admin))))
    }

    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.inner.start.elapsed()
    }

    fn new_id(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn spawn(&self, _: &str, task: BoxFuture<'static, ()>) {
        // Detached: the bus hands out a handle of its own.
        drop(self.inner.runtime.spawn(task));
    }

    fn process(&self, _: &str, start: ProcessStart) {
        drop(self.inner.runtime.spawn(start(Bus::new(Arc::new(self.clone())))));
    }

    fn native(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for KafkaBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaBus").field("bootstrap", &self.inner.options.bootstrap).finish()
    }
}
