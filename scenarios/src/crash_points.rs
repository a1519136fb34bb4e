//! Crash points: the places between two effects of an application where a process may crash.
//!
//! An application says where it is; a test, or a plan of faults, decides. By default nothing
//! happens, at no cost.

use std::fmt;
use std::sync::Arc;

/// Decides what happens at crash points. Cheap to clone.
///
/// ```
/// use scenarios::{CrashPoints, Reached};
///
/// let crash_points = CrashPoints::new(|process, point| {
///     println!("{process} reached {point}");
///     Reached::Continue
/// });
/// ```
#[derive(Clone, Default)]
pub struct CrashPoints {
    decide: Option<Arc<Decide>>,
}

type Decide = dyn Fn(&str, &str) -> Reached + Send + Sync;

/// What happens to a process at a crash point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reached {
    /// Nothing.
    #[default]
    Continue,
    /// It never gets beyond this point. Whoever decides so also crashes the process, where the
    /// backend can: `SimHandle::crash` on the simulator.
    Crash,
}

impl CrashPoints {
    /// Asks `decide` at each crash point, with the name of the process and that of the point.
    pub fn new(decide: impl Fn(&str, &str) -> Reached + Send + Sync + 'static) -> Self {
        Self { decide: Some(Arc::new(decide)) }
    }

    /// The process is at the point: the effect before it has happened, the one behind it has not.
    pub async fn reach(&self, process: &str, point: &str) {
        let Some(decide) = &self.decide else { return };
        match decide(process, point) {
            Reached::Continue => {}
            // A crashed process runs no further instruction, and neither does this one, even if
            // the crash reaches it only when its task is polled again.
            Reached::Crash => std::future::pending().await,
        }
    }
}

impl fmt::Debug for CrashPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decides = self.decide.is_some();
        f.debug_struct("CrashPoints").field("decides", &decides).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_crash_is_the_last_thing_that_a_process_does() {
        let crash_points = CrashPoints::new(|process, point| match (process, point) {
            ("a", "here") => Reached::Crash,
            _ => Reached::Continue,
        });
        crash_points.reach("a", "there").await;
        crash_points.reach("b", "here").await;
        let crash = crash_points.reach("a", "here");
        assert!(tokio::time::timeout(Duration::from_secs(1), crash).await.is_err());
    }
}
