//! A case of the suite, and what came of it.

use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};

use crate::cx::Cx;
use crate::failure::Verdict;
use crate::fixture::Need;

/// One guarantee, checked by an async function over the bus.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is about.
    pub group: Group,
    /// The number in the list of guarantees, `P4` for example.
    pub id: &'static str,
    /// The module and the name of the function.
    pub name: &'static str,
    /// The powers that it needs of the backend.
    pub needs: &'static [Need],
    /// The function.
    pub run: fn(Cx) -> LocalBoxFuture<'static, Verdict>,
}

/// What a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the group of that name")]
pub enum Group {
    Produce,
    Consume,
    Groups,
    Commit,
    Transactions,
    Replication,
    Lifecycle,
    Isolation,
    Admin,
    Errors,
}

impl Group {
    /// The source of the group's cases, for their doc comments.
    const fn source(self) -> &'static str {
        match self {
            Self::Produce => concat!(
                include_str!("cases/produce.rs"),
                include_str!("cases/payload.rs"),
                include_str!("cases/retries.rs"),
            ),
            Self::Consume => {
                concat!(include_str!("cases/consume.rs"), include_str!("cases/positions.rs"))
            }
            Self::Groups => concat!(
                include_str!("cases/groups.rs"),
                include_str!("cases/rebalances.rs"),
                include_str!("cases/fencing.rs"),
            ),
            Self::Commit => include_str!("cases/commit.rs"),
            Self::Transactions => concat!(
                include_str!("cases/transactions.rs"),
                include_str!("cases/exactly_once.rs"),
                include_str!("cases/transaction_fencing.rs"),
                include_str!("cases/transaction_errors.rs"),
                include_str!("cases/transaction_faults.rs"),
            ),
            Self::Replication => {
                concat!(include_str!("cases/replication.rs"), include_str!("cases/failover.rs"))
            }
            Self::Lifecycle => include_str!("cases/lifecycle.rs"),
            Self::Isolation => include_str!("cases/isolation.rs"),
            Self::Admin => include_str!("cases/admin.rs"),
            Self::Errors => {
                concat!(include_str!("cases/errors.rs"), include_str!("cases/misuse.rs"))
            }
        }
    }
}

impl Group {
    /// The functions of the group's cases, by its source.
    #[cfg(test)]
    pub(crate) fn functions(self) -> impl Iterator<Item = &'static str> {
        let lines = self.source().lines();
        lines.filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next())
    }
}

impl Case {
    /// The guarantee: the doc comment of the function, in one line.
    pub fn guarantee(&self) -> String {
        let function = self.name.rsplit("::").next().unwrap_or(self.name);
        let head = format!("pub async fn {function}(");
        let source = self.group.source();
        let before = source.split(&head).next().filter(|before| before.len() < source.len());
        let mut lines: Vec<&str> = before
            .unwrap_or_default()
            .lines()
            .rev()
            .map_while(|line| line.strip_prefix("///"))
            .map(str::trim)
            .collect();
        lines.reverse();
        lines.join(" ").trim().to_owned()
    }
}

/// What came of a case on one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", content = "reason", rename_all = "lowercase")]
pub enum Outcome {
    /// It held.
    Passed,
    /// It was not run, for this reason.
    Skipped(String),
    /// It did not hold, or could not be carried out.
    Failed(String),
}
