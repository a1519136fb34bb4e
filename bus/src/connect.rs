//! Connect: from a URL to a bus, in the runtime of the caller.

use bus_core::{Bus, BusUrl, Error, ErrorKind, Operation, Result};

/// Connects to the bus at `url`, in the tokio runtime of the caller.
///
/// For applications that own their runtime. [`run`](crate::run()) works with every URL.
///
/// ```no_run
/// # async fn example() -> bus::Result<()> {
/// let bus = bus::connect("kafka://localhost:9092?client.id=shop").await?;
/// let topics = bus.admin()?.list_topics().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] for a URL that is malformed, has an unknown scheme or option, or is
/// of the simulator; [`ErrorKind::Unsupported`] for `mem://`; and when no broker answers, what the
/// backend says.
pub async fn connect(url: &str) -> Result<Bus> {
    let parsed = parse(url).map_err(|error| error.with_operation(Operation::Connect))?;
    match parsed.scheme {
        Scheme::Kafka => bus_kafka::connect(&parsed.url).await,
        Scheme::Sim => Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "{url:?} cannot be connected to: a simulation needs a runtime of its own, with one \
                 thread and a paused clock, or its time would not be virtual; use bus::run"
            ),
        )
        .with_operation(Operation::Connect)),
    }
}

/// A URL whose scheme is known.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) scheme: Scheme,
    pub(crate) url: BusUrl,
}

/// What is behind a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Sim,
    Kafka,
}

/// Parses a URL and looks up its scheme.
pub(crate) fn parse(text: &str) -> Result<Parsed> {
    let url: BusUrl = text.parse()?;
    let scheme = match url.scheme.as_str() {
        "sim" => Scheme::Sim,
        "kafka" => Scheme::Kafka,
        "mem" => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "mem:// does not exist yet (docs/fidelity.md); use sim://, which is in memory too",
            ));
        }
        scheme => {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "bus URL {text:?} has the unknown scheme {scheme:?}; there are sim:// (for \
                     example sim://?seed=42) and kafka:// (for example kafka://localhost:9092)"
                ),
            ));
        }
    };
    Ok(Parsed { scheme, url })
}
