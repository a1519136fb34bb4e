//! What stories share: the processes that take part, and a group that comes to its end.

use std::time::Duration;

use bus_core::{Bus, Record, Result};

use crate::lifecycle::Lifecycle;
use crate::report::Observer;
use crate::setting::Setting;

/// Waits until a group has committed all of its topic, then ends its processes. Returns whether it
/// came so far in time.
///
/// # Errors
/// What ended a process for good, and those of an administration client.
pub async fn finished(bus: &Bus, observer: &Observer, life: &Lifecycle) -> Result<bool> {
    let begun = bus.elapsed();
    loop {
        life.check()?;
        let partitions = observer.partitions().await?;
        let is_done = observer.lag(&partitions).await? == 0;
        if is_done || bus.elapsed().saturating_sub(begun) > DEADLINE {
            life.stop(Duration::from_secs(30)).await;
            return Ok(is_done);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The processes that take part: all of them on an ordinary day, and at least the first.
pub fn processes(setting: &Setting, names: &[&'static str]) -> impl Iterator<Item = &'static str> {
    let count = setting.size("processes", 1..=names.len());
    names.iter().copied().take(count)
}

/// How long a story may take: a few session timeouts.
const DEADLINE: Duration = Duration::from_mins(2);

/// The value of a record as a text.
pub fn value(record: &Record) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}
