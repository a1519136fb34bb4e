//! What librdkafka tells on the side, as `tracing` events: log, statistics, errors.

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::Code;
use crate::ffi::EventKind;

/// The context of every client.
#[derive(Debug, Default)]
pub struct Context {
    last_error: Mutex<Option<(Code, String)>>,
}

impl Context {
    /// The newest error that the client reported on the side, such as a refused connection.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().as_ref().map(|(_, reason)| reason.clone())
    }

    /// Whether the newest error says that a broker refused who connected.
    pub(crate) fn is_refused(&self) -> bool {
        let last = self.last_error.lock();
        last.as_ref().is_some_and(|(code, _)| {
            code.error("").kind() == bus_core::ErrorKind::AuthenticationFailed
        })
    }

    /// Handles an event that is on the side of what a client does.
    pub(crate) fn side_event(&self, event: EventKind) {
        match event {
            EventKind::Log { level, facility, line } => {
                let level = match level {
                    ..=3 => RDKafkaLogLevel::Error,
                    4 => RDKafkaLogLevel::Warning,
                    5 | 6 => RDKafkaLogLevel::Info,
                    7.. => RDKafkaLogLevel::Debug,
                };
                self.log(level, facility.trim(), line.trim());
            }
            EventKind::Statistics(statistics) => self.stats_raw(statistics.as_bytes()),
            EventKind::Record
            | EventKind::Rebalance { .. }
            | EventKind::Error { .. }
            | EventKind::Commit { .. }
            | EventKind::Other => {}
        }
    }

    /// Handles an error that is on the side of what a client does.
    pub(crate) fn side_error(&self, code: Code, reason: &str) {
        let error = code.description();
        tracing::warn!(target: "librdkafka", facility = "ERROR", %error, "{reason}");
        let mut last = self.last_error.lock();
        // "All brokers are down" says less than what brought the last of them down.
        if last.is_none() || code.known() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *last = Some((code, reason.to_owned()));
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", facility, "{message}");
            }
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let statistics = String::from_utf8_lossy(statistics);
        tracing::info!(target: "librdkafka", facility = "STATS", %statistics, "statistics");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        self.side_error(code.into(), reason);
    }
}
