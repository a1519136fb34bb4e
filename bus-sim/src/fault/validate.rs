//! What is wrong with a plan, said before it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus_core::{Error, ErrorKind, Result};

use super::{FactPattern, Fault, FaultId, Messages, Party, Plan, Planned, Target, Trigger, Until};
use crate::node::BrokerId;
use crate::protocol::Api;

/// The states of a group.
const GROUP_STATES: &[&str] = &["Empty", "PreparingRebalance", "CompletingRebalance", "Stable"];
/// The states of a transaction.
const TRANSACTION_STATES: &[&str] = &[
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

impl Plan {
    /// Checks a plan for a cluster of `brokers`. Processes, topics, and groups are not known before
    /// a run: a fault whose target is not there strikes nobody, and its report says so.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the fault and what would be right.
    pub fn validate(&self, brokers: i32) -> Result<()> {
        let mut ids = BTreeSet::new();
        for planned in &self.faults {
            if planned.id == 0 || !ids.insert(planned.id) {
                let why = "the ids of faults count from 1, and no two are the same";
                return Err(invalid(planned.id, why));
            }
        }
        for planned in &self.faults {
            planned.check(brokers, &ids).map_err(|why| invalid(planned.id, &why))?;
        }
        match self.cycle() {
            Some(id) => Err(invalid(id, "it waits for itself")),
            None => Ok(()),
        }
    }

    /// A fault that strikes after itself.
    fn cycle(&self) -> Option<FaultId> {
        let after: BTreeMap<FaultId, FaultId> = self.faults.iter().filter_map(after).collect();
        after.keys().copied().find(|id| {
            let mut at = *id;
            // More steps than faults are a circle.
            (0..=after.len()).all(|_| match after.get(&at) {
                Some(next) => {
                    at = *next;
                    true
                }
                None => false,
            })
        })
    }
}

fn after(planned: &Planned) -> Option<(FaultId, FaultId)> {
    match &planned.when {
        Trigger::After { fault, .. } => Some((planned.id, *fault)),
        _ => None,
    }
}

impl Planned {
    fn check(&self, brokers: i32, ids: &BTreeSet<FaultId>) -> Result<(), String> {
        self.when.check(brokers, ids)?;
        if let Some(Until::When(end)) = &self.until {
            end.check(brokers, ids)?;
        }
        if self.until.is_some() && !self.fault.has_end() {
            return Err(format!("{} is over at once: leave out `until`", self.fault.kind().name()));
        }
        for target in self.fault.targets() {
            if let Target::Broker(id) = target {
                check_broker(*id, brokers)?;
            }
        }
        match &self.fault {
            Fault::LoseRequest(messages)
            | Fault::LoseResponse(messages)
            | Fault::DelayRequest(messages, _)
            | Fault::DelayResponse(messages, _) => messages.check(brokers),
            Fault::CrashProcess(name) | Fault::PauseProcess(name) | Fault::StallProcess(name)
                if name == "main" =>
            {
                Err("the process main is what is outside of every named one; it cannot stop".into())
            }
            fault => match fault.commits_of() {
                Some((process, database)) => check_commits(process, database),
                None => Ok(()),
            },
        }
    }
}

impl Planned {
    /// Whether it loses or delays what brokers say to each other and to the controller for at least
    /// so long.
    pub(crate) fn slows_brokers(&self, limit: Duration) -> bool {
        let (messages, lasts) = match &self.fault {
            Fault::DelayRequest(messages, by) | Fault::DelayResponse(messages, by) => {
                (messages, *by >= limit)
            }
            Fault::LoseRequest(messages) | Fault::LoseResponse(messages) => (messages, false),
            _ => return false,
        };
        let lasts = lasts
            || match &self.until {
                None => false,
                Some(Until::For(duration)) => *duration >= limit,
                Some(Until::When(_)) => true,
            };
        let is_of_brokers = matches!(
            messages.api,
            Api::Fetch
                | Api::OffsetForLeaderEpoch
                | Api::AlterPartition
                | Api::RegisterBroker
                | Api::BrokerHeartbeat
                | Api::FetchMetadataLog
        );
        lasts
            && is_of_brokers
            && !matches!(messages.from, Some(Party::AnyProcess | Party::Process(_)))
    }
}

impl Trigger {
    fn check(&self, brokers: i32, ids: &BTreeSet<FaultId>) -> Result<(), String> {
        match self {
            Self::Request { nth: 0, .. }
            | Self::Fact { nth: 0, .. }
            | Self::Reached { nth: 0, .. }
            | Self::Commit { nth: 0, .. } => Err("nth counts from 1".to_owned()),
            Self::Commit { process, database, .. } => check_commits(process, database),
            Self::Request { from, to, .. } => check_parties(from.as_ref(), to.as_ref(), brokers),
            Self::Fact { is, .. } => is.check(brokers),
            Self::After { fault, .. } if !ids.contains(fault) => {
                Err(format!("there is no fault {fault} to strike after"))
            }
            Self::At(_) | Self::After { .. } | Self::Reached { .. } => Ok(()),
        }
    }
}

impl FactPattern {
    fn check(&self, brokers: i32) -> Result<(), String> {
        let (state, known) = match self {
            Self::GroupState(_, state) => (state, GROUP_STATES),
            Self::TransactionState(_, state) => (state, TRANSACTION_STATES),
            Self::InSync(_, _, replicas) => {
                return replicas.iter().try_for_each(|id| check_broker(*id, brokers));
            }
            _ => return Ok(()),
        };
        if known.contains(&state.as_str()) {
            return Ok(());
        }
        Err(format!("no state {state:?}; there are {}", known.join(", ")))
    }
}

impl Messages {
    fn check(&self, brokers: i32) -> Result<(), String> {
        check_parties(self.from.as_ref(), self.to.as_ref(), brokers)
    }
}

impl Fault {
    /// Whether it lasts: what is over at once has no end.
    pub const fn has_end(&self) -> bool {
        !matches!(self, Self::ResetConnections(..) | Self::CrashController | Self::ElectPreferred)
    }

    /// Whether it lies in wait for messages or commits.
    pub(crate) const fn is_rule(&self) -> bool {
        matches!(
            self,
            Self::LoseRequest(_)
                | Self::LoseResponse(_)
                | Self::DelayRequest(..)
                | Self::DelayResponse(..)
                | Self::RefuseCommit(..)
                | Self::LoseCommit(..)
                | Self::LoseCommitAnswer(..)
                | Self::DelayCommit(..)
        )
    }

    /// Whether a broker is away from the others while it lasts.
    pub const fn takes_broker_away(&self) -> bool {
        matches!(
            self,
            Self::CrashBroker(_)
                | Self::LosePower(_)
                | Self::ShutDownBroker(_)
                | Self::FreezeBroker(_)
                | Self::IsolateBroker(_)
                | Self::CutBrokers(..)
                | Self::CutOneWay(..)
                | Self::CutFromController(_)
        )
    }

    /// Whose commits it strikes, and at which database.
    pub fn commits_of(&self) -> Option<(&str, &str)> {
        match self {
            Self::RefuseCommit(process, database)
            | Self::LoseCommit(process, database)
            | Self::LoseCommitAnswer(process, database)
            | Self::DelayCommit(process, database, _) => Some((process, database)),
            _ => None,
        }
    }

    /// The brokers that it names.
    pub fn targets(&self) -> Vec<&Target> {
        match self {
            Self::CrashBroker(target)
            | Self::LosePower(target)
            | Self::ShutDownBroker(target)
            | Self::FreezeBroker(target)
            | Self::IsolateBroker(target)
            | Self::CutFromController(target)
            | Self::CutProcess(_, target)
            | Self::ResetConnections(_, target) => vec![target],
            Self::CutBrokers(a, b) | Self::CutOneWay(a, b) => vec![a, b],
            Self::CrashController
            | Self::ElectPreferred
            | Self::LoseRequest(_)
            | Self::LoseResponse(_)
            | Self::DelayRequest(..)
            | Self::DelayResponse(..)
            | Self::CrashProcess(_)
            | Self::PauseProcess(_)
            | Self::StallProcess(_)
            | Self::RefuseCommit(..)
            | Self::LoseCommit(..)
            | Self::LoseCommitAnswer(..)
            | Self::DelayCommit(..) => Vec::new(),
        }
    }
}

fn check_parties(from: Option<&Party>, to: Option<&Party>, brokers: i32) -> Result<(), String> {
    if matches!(from, Some(Party::Controller)) {
        return Err("the controller sends no requests".to_owned());
    }
    if matches!(to, Some(Party::AnyProcess | Party::Process(_))) {
        return Err("processes handle no requests; say who sends them with `from`".to_owned());
    }
    [from, to].into_iter().flatten().try_for_each(|party| match party {
        Party::Broker(id) => check_broker(*id, brokers),
        _ => Ok(()),
    })
}

fn check_commits(process: &str, database: &str) -> Result<(), String> {
    if process.is_empty() || database.is_empty() {
        return Err("name the process and the database whose commits it is about".to_owned());
    }
    Ok(())
}

fn check_broker(id: BrokerId, brokers: i32) -> Result<(), String> {
    if (1..=brokers).contains(&id) {
        return Ok(());
    }
    Err(format!("no broker {id}; there are 1 to {brokers}"))
}

fn invalid(id: FaultId, why: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("fault {id} of the plan: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(faults: &str) -> String {
        let plan: Plan = ron::from_str(&format!("(faults: [{faults}])")).unwrap();
        plan.validate(3).unwrap_err().message().to_owned()
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (faults, why) in [
            ("(id: 0, when: At(\"1s\"), fault: CrashController)", "count from 1"),
            (
                "(id: 1, when: At(\"1s\"), fault: CrashController), \
                 (id: 1, when: At(\"1s\"), fault: CrashController)",
                "no two are the same",
            ),
            ("(id: 1, when: At(\"1s\"), fault: CrashBroker(Broker(4)))", "no broker 4"),
            (
                "(id: 1, when: After(fault: 2, by: \"1s\"), fault: CrashController)",
                "there is no fault 2",
            ),
            (
                "(id: 1, when: After(fault: 1, by: \"1s\"), fault: CrashController)",
                "it waits for itself",
            ),
            (
                "(id: 1, when: Request(api: Fetch, is: Sent, nth: 0), fault: CrashController)",
                "nth counts from 1",
            ),
            (
                "(id: 1, when: Commit(process: \"p\", database: \"d\", nth: 0), \
                 fault: CrashController)",
                "nth counts from 1",
            ),
            (
                "(id: 1, when: At(\"1s\"), fault: LoseCommit(\"shop\", \"\"))",
                "name the process and the database",
            ),
            (
                "(id: 1, when: Fact(is: GroupState(\"g\", \"Dead\")), fault: CrashController)",
                "no state \"Dead\"",
            ),
            (
                "(id: 1, when: At(\"1s\"), fault: CrashController, until: Some(For(\"1s\")))",
                "is over at once",
            ),
            ("(id: 1, when: At(\"1s\"), fault: PauseProcess(\"main\"))", "it cannot stop"),
            (
                "(id: 1, when: At(\"1s\"), fault: LoseRequest((api: Fetch, to: Some(AnyProcess))))",
                "processes handle no requests",
            ),
        ] {
            let error = error(faults);
            assert!(error.contains(why), "{faults}: {error}");
        }
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for text in [
            "(faults: [], crash: 1)",
            "(faults: [(id: 1, when: At(\"1s\"), fault: Explode)])",
            "(faults: [(id: 1, when: At(\"soon\"), fault: CrashController)])",
            "(faults: [(id: 1, when: At(\"1s\"), fault: CrashController, untill: 1)])",
            "(faults: [(id: 1, when: At(\"1s\"), fault: LoseCommit(\"shop\"))])",
            "(faults: [(id: 1, when: At(\"1s\"), fault: DelayCommit(\"shop\", \"db\", 3))])",
        ] {
            assert!(ron::from_str::<Plan>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_plan_is_written_as_it_is_read() {
        let text = [
            r#"(faults:[(id:1,when:Request(api:Fetch,is:Handled,from:Some(Broker(2)),nth:3),"#,
            r#"fault:CutProcess("a",Leader("orders",0)),until:Some(For("2s"))),"#,
            r#"(id:2,when:Reached(process:"a",point:"sent"),fault:CrashController),"#,
            r#"(id:3,when:Commit(process:"a",database:"shop",nth:7),"#,
            r#"fault:LoseCommitAnswer("a","shop")),"#,
            r#"(id:4,when:At("1s"),fault:DelayCommit("a","shop","7s"),until:Some(For("2s")))],"#,
            r#"quiesce_at:Some("9s"))"#,
        ];
        let plan: Plan = ron::from_str(&text.concat()).unwrap();
        assert_eq!(ron::to_string(&plan).unwrap(), text.concat());
    }
}
