//! Patience: what a person who looks at a cluster does when it does not answer at once.

use std::future::Future;
use std::time::Duration;

use bus_core::{Bus, ErrorKind, NewTopic, Recovery, Result};
use tokio::time::Instant;

/// For how long an operator tries again.
const PATIENCE: Duration = Duration::from_mins(5);
const PAUSE: Duration = Duration::from_millis(500);

/// Tries again, for up to five minutes, as long as the error says that it may help.
///
/// # Errors
/// The last error.
pub async fn patiently<T, Fut>(mut attempt: impl FnMut() -> Fut) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    let give_up = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Err(error) if error.recovery() == Recovery::Retry && Instant::now() < give_up => {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// Creates a topic, unless it is there. Brokers that are missing for its replicas are waited for,
/// up to half a minute.
///
/// # Errors
/// Those of [`create_topic`](bus_core::Admin::create_topic) but for `TopicAlreadyExists`.
pub async fn create_topic(bus: &Bus, topic: NewTopic) -> Result<()> {
    let admin = bus.admin()?;
    let give_up = Instant::now() + RESTART;
    loop {
        match patiently(|| admin.create_topic(topic.clone())).await {
            Err(error) if error.kind() == ErrorKind::TopicAlreadyExists => return Ok(()),
            Err(error)
                if error.kind() == ErrorKind::InvalidReplicationFactor
                    && Instant::now() < give_up =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// Tries again as [`patiently`] does, and up to half a minute if there is no such topic: a broker
/// that is cut off from the controller has not heard of a new one.
///
/// # Errors
/// The last error.
pub async fn once_it_is_there<T, Fut>(mut attempt: impl FnMut() -> Fut) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    let give_up = Instant::now() + RESTART;
    loop {
        match patiently(&mut attempt).await {
            Err(error)
                if error.kind() == ErrorKind::UnknownTopicOrPartition
                    && Instant::now() < give_up =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// How long a broker needs to come back after a restart, and more.
const RESTART: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use bus_core::Error;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_may_help_is_tried_until_patience_ends() {
        let mut attempts = 0;
        let outcome = patiently(|| {
            attempts += 1;
            let done = attempts == 3;
            async move { if done { Ok(7) } else { Err(Error::new(ErrorKind::TimedOut, "slow")) } }
        });
        assert_eq!(outcome.await.unwrap(), 7);
        let never = patiently(|| async { Err::<(), _>(Error::new(ErrorKind::TimedOut, "slow")) });
        assert_eq!(never.await.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_help_is_not_tried_again() {
        let mut attempts = 0;
        let outcome = patiently(|| {
            attempts += 1;
            async { Err::<(), _>(Error::new(ErrorKind::InvalidArgument, "wrong")) }
        });
        assert!(outcome.await.is_err());
        assert_eq!(attempts, 1);
    }
}
