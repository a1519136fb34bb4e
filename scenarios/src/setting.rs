//! The setting of a run: what an application leaves to whoever runs it.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::commits::Commits;
use crate::crash_points::CrashPoints;

/// What an application leaves to whoever runs it: what happens at its crash points, what comes of
/// its commits at databases, and how much work it does. By default nothing happens, and it does
/// all. Cheap to clone.
///
/// ```
/// use scenarios::{CrashPoints, Setting};
///
/// let setting = Setting::default().with_sizes(|name, range| match name {
///     "payments" => 3,
///     _ => *range.end(),
/// });
/// assert_eq!(setting.size("payments", 1..=20), 3);
/// assert_eq!(setting.size("processes", 1..=2), 2);
/// ```
#[derive(Clone, Default)]
pub struct Setting {
    /// Who decides what happens at crash points.
    pub crash_points: CrashPoints,
    /// Who decides what comes of commits at databases.
    pub commits: Commits,
    sizes: Option<Arc<Decide>>,
}

type Decide = dyn Fn(&str, RangeInclusive<usize>) -> usize + Send + Sync;

impl Setting {
    /// With somebody who decides what happens at crash points.
    pub fn new(crash_points: CrashPoints) -> Self {
        Self { crash_points, ..Self::default() }
    }

    /// With somebody who decides what comes of commits at databases.
    #[must_use]
    pub fn with_commits(self, commits: Commits) -> Self {
        Self { commits, ..self }
    }

    /// Asks `decide` for each size, with its name, and the least and the ordinary one.
    #[must_use]
    pub fn with_sizes(
        mut self,
        decide: impl Fn(&str, RangeInclusive<usize>) -> usize + Send + Sync + 'static,
    ) -> Self {
        self.sizes = Some(Arc::new(decide));
        self
    }

    /// How much there is of something in this run, from the least that makes sense to what there is
    /// on an ordinary day.
    pub fn size(&self, name: &str, range: RangeInclusive<usize>) -> usize {
        match &self.sizes {
            None => *range.end(),
            Some(decide) => decide(name, range.clone()).clamp(*range.start(), *range.end()),
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decides = self.sizes.is_some();
        f.debug_struct("Setting")
            .field("crash_points", &self.crash_points)
            .field("commits", &self.commits)
            .field("decides_sizes", &decides)
            .finish()
    }
}
