//! `socket.timeout.ms`: how long a client waits for the response to a request, as librdkafka has
//! it.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::{Error, ErrorKind, Result};

use super::connections::SOCKET_TIMEOUT;

/// The property.
const NAME: &str = "socket.timeout.ms";

/// How long a client with these properties waits.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`].
pub(crate) fn socket_timeout(properties: &BTreeMap<String, String>) -> Result<Duration> {
    let Some(value) = properties.get(NAME) else { return Ok(SOCKET_TIMEOUT) };
    match value.parse::<u64>() {
        Ok(millis) if (10..=300_000).contains(&millis) => Ok(Duration::from_millis(millis)),
        _ => Err(wrong(format!("property {NAME}={value:?} must be from 10 to 300000"))),
    }
}

/// How long a transactional producer waits: one request at least shall have its time before the
/// transaction times out.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`].
pub(crate) fn transactional_socket_timeout(
    properties: &BTreeMap<String, String>,
    transaction_timeout: Duration,
) -> Result<Duration> {
    if !properties.contains_key(NAME) {
        return Ok(transaction_timeout.saturating_sub(MARGIN).max(LEAST));
    }
    let timeout = socket_timeout(properties)?;
    if transaction_timeout + MARGIN < timeout {
        let message = format!("property {NAME} must be at most transaction.timeout.ms + 100");
        return Err(wrong(message));
    }
    Ok(timeout)
}

const MARGIN: Duration = Duration::from_millis(100);
const LEAST: Duration = Duration::from_millis(900);

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(NAME.to_owned(), value.to_owned())])
    }

    #[test]
    fn transactions_wait_less_than_they_may_take() {
        let of = |seconds| {
            transactional_socket_timeout(&BTreeMap::new(), Duration::from_secs(seconds)).unwrap()
        };
        assert_eq!((of(60), of(1)), (Duration::from_millis(59_900), LEAST));
        assert_eq!(socket_timeout(&BTreeMap::new()).unwrap(), SOCKET_TIMEOUT);
        let said = transactional_socket_timeout(&with("1000"), Duration::from_secs(10));
        assert_eq!(said.unwrap(), Duration::from_secs(1));
    }

    #[test]
    fn wrong_values_are_refused() {
        for value in ["", "9", "300001", "1s", "-1"] {
            let error = socket_timeout(&with(value)).unwrap_err();
            assert!(error.to_string().contains("from 10 to 300000"), "{error}");
        }
        let long = transactional_socket_timeout(&with("1101"), Duration::from_secs(1));
        assert!(long.unwrap_err().to_string().contains("transaction.timeout.ms"));
    }
}
