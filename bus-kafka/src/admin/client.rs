//! The clients that administer: one for all, and one that asks the coordinators of groups.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus_core::{Error, ErrorKind, Operation, Result};
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaType;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::config::Options;
use crate::context::Context;
use crate::error::from_rdkafka;
use crate::ffi::admin as requests;
use crate::ffi::{EventKind, Failure, Queue};
use crate::offload::Offloaded;
use crate::{OPERATION_TIMEOUT, blocking};

/// The client that administers, and by which `connect` finds out whether a Kafka is there.
pub(crate) struct AdminClient {
    native: Arc<Offloaded<Native>>,
    /// The client that asks the coordinators of groups, made when it is needed. It is of the kind
    /// of consumers: librdkafka 2.12.1 ends the process with a segmentation fault if a coordinator
    /// tells another client that it has moved (`rd_kafka_handle_OffsetFetch` takes the group of the
    /// client, and only a consumer has one).
    of_groups: Mutex<Option<Arc<Offloaded<Native>>>>,
    group_config: ClientConfig,
    runtime: Handle,
}

struct Native {
    // The queue goes before the client.
    queue: Queue,
    client: Client<Context>,
}

impl AdminClient {
    /// Connects, and waits for the first broker that answers.
    pub(crate) async fn connect(options: &Options, runtime: &Handle) -> Result<Self> {
        let admin = Self::create(options, runtime)?;
        let timeout = options.connect_timeout;
        let cluster_id = admin
            .run(move |client| Ok(requests::cluster_id(client.native_client(), timeout)))
            .await?;
        match cluster_id {
            Some(_) => Ok(admin),
            None => Err(unreachable(options, admin.native.client.context())),
        }
    }

    /// Not async: librdkafka's configuration must not be held while a future waits, because it is
    /// not `Send`.
    fn create(options: &Options, runtime: &Handle) -> Result<Self> {
        // Of the two kinds a producer has less: no group and no fetchers.
        let kind = RDKafkaType::RD_KAFKA_PRODUCER;
        Ok(Self {
            native: Native::create(&options.admin_config(), kind, runtime)?,
            of_groups: Mutex::default(),
            group_config: options.group_admin_config(),
            runtime: runtime.clone(),
        })
    }

    /// Runs a blocking call.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Client<Context>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let native = Arc::clone(&self.native);
        blocking(&self.runtime, move || call(&native.client)).await?
    }

    /// Runs a blocking call of the client that asks the coordinators of groups, each time for at
    /// most the given time.
    ///
    /// That client remembers who coordinates a group as long as it asks now and then, whatever the
    /// broker says (librdkafka 2.12: nothing calls `rd_kafka_coord_cache_evict` for requests of
    /// administration). So one that was told `NotCoordinator`, or nothing at all, is replaced.
    pub(super) async fn run_of_groups<T: Send + 'static>(
        &self,
        may_repeat: impl Fn(&Error) -> bool + Send,
        call: impl Fn(&Client<Context>, Duration) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        /// How long a client may take before another one is tried.
        const ATTEMPT: Duration = Duration::from_secs(10);
        const PAUSE: Duration = Duration::from_millis(100);

        let call = Arc::new(call);
        let end = Instant::now() + OPERATION_TIMEOUT;
        loop {
            let native = self.of_groups()?;
            let timeout = end.saturating_duration_since(Instant::now()).min(ATTEMPT);
            let outcome = {
                let (native, call) = (Arc::clone(&native), Arc::clone(&call));
                blocking(&self.runtime, move || call(&native.client, timeout)).await?
            };
            match outcome {
                Err(error) if is_of_coordinator(&error) => {
                    self.of_groups.lock().take_if(|current| Arc::ptr_eq(current, &native));
                    if !may_repeat(&error) || Instant::now() + PAUSE >= end {
                        return Err(error);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn of_groups(&self) -> Result<Arc<Offloaded<Native>>> {
        let mut current = self.of_groups.lock();
        if let Some(native) = &*current {
            return Ok(Arc::clone(native));
        }
        let kind = RDKafkaType::RD_KAFKA_CONSUMER;
        let native = Native::create(&self.group_config, kind, &self.runtime)?;
        *current = Some(Arc::clone(&native));
        Ok(native)
    }
}

/// Whether another client may do better, which looks for the coordinator of a group anew.
fn is_of_coordinator(error: &Error) -> bool {
    use ErrorKind as E;
    matches!(
        error.kind(),
        E::NotCoordinator
            | E::CoordinatorNotAvailable
            | E::CoordinatorLoadInProgress
            | E::NetworkException
            | E::AllBrokersDown
            | E::TimedOut
            | E::RequestTimedOut
    )
}

impl Native {
    fn create(
        config: &ClientConfig,
        kind: RDKafkaType,
        runtime: &Handle,
    ) -> Result<Arc<Offloaded<Self>>> {
        let failed = |error| from_rdkafka(&error, Operation::Connect);
        let native_config = config.create_native_config().map_err(failed)?;
        crate::ffi::enable_events(&native_config);
        let client =
            Client::new(config, native_config, kind, Context::default()).map_err(failed)?;
        let mut queue = Queue::main(client.native_client()).ok_or_else(|| {
            Error::new(ErrorKind::Backend, "librdkafka's client has no main queue")
        })?;
        let arrived = Arc::new(Notify::new());
        let notifier = Arc::clone(&arrived);
        queue.on_nonempty(move || notifier.notify_one());
        // Events may have come before the callback.
        arrived.notify_one();
        let native = Arc::new(Offloaded::new(Self { queue, client }));
        drop(runtime.spawn(serve(Arc::downgrade(&native), arrived)));
        Ok(native)
    }
}

/// Handles what the client tells on the side, until it is gone.
async fn serve(native: std::sync::Weak<Offloaded<Native>>, arrived: Arc<Notify>) {
    loop {
        arrived.notified().await;
        let Some(native) = native.upgrade() else { return };
        while let Some(event) = native.queue.poll(Duration::ZERO) {
            match (event.kind(), event.failure()) {
                (EventKind::Error { .. }, Some(Failure { code, message })) => {
                    native.client.context().side_error(code, &message);
                }
                (other, _) => native.client.context().side_event(other),
            }
        }
    }
}

fn unreachable(options: &Options, context: &Context) -> Error {
    let Options { bootstrap, connect_timeout, .. } = options;
    let last =
        context.last_error().map_or_else(String::new, |last| format!("; last error: {last}"));
    let message = format!(
        "no broker answered within {connect_timeout:?} at {bootstrap}{last}; check that a Kafka \
         listens there, that security.protocol is right, and connect.timeout.ms"
    );
    let kind = if context.is_refused() {
        ErrorKind::AuthenticationFailed
    } else {
        ErrorKind::AllBrokersDown
    };
    Error::new(kind, message).with_operation(Operation::Connect)
}
