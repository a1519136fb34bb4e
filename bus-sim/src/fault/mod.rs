//! Faults as data: what is done to a world, and when. A plan is written by hand, drawn from a seed
//! ([`draw()`]), or shrunk; a run of equal seed, configuration, and plan is the same.
//!
//! A fault strikes between two events. A [`Trigger`] that is an event ("after broker 2 handled its
//! third fetch") survives the shrinking of a run and changes of the code better than a time. Whom a
//! [`Target`] such as "the leader of orders-0" means is found out when the fault strikes.
//!
//! The report of a run tells of each fault when it struck, whom, and whether that changed anything
//! ([`FaultReport`]).
//!
//! ```
//! use bus_core::{NewTopic, ProducerConfig, ProducerRecord, Result};
//! use bus_sim::fault::{Fault, Plan, Planned, Stage, Target, Trigger, Until};
//! use bus_sim::{Api, Sim, SimConfig};
//!
//! // The leader crashes between the append and its acknowledgment.
//! let crash = Planned {
//!     id: 1,
//!     when: Trigger::request(Api::Produce, Stage::Answered),
//!     fault: Fault::CrashBroker(Target::Leader("orders".into(), 0)),
//!     until: Some(Until::For(std::time::Duration::from_secs(2))),
//! };
//! let plan = Plan { faults: vec![crash], ..Default::default() };
//! let config = SimConfig { brokers: 3, plan, record_trace: true, ..Default::default() };
//! let outcome = Sim::new(config)?.run(|sim| async move {
//!     let bus = sim.bus();
//!     bus.admin()?.create_topic(NewTopic::new("orders").replication_factor(3)).await?;
//!     let producer = bus.producer(ProducerConfig::default())?;
//!     producer.send(ProducerRecord::to("orders").value("1")).await
//! });
//! // The producer sends it again, and the new leader sees that it is there already.
//! assert_eq!(outcome.result.expect("it does not stall")?.offset, Some(0));
//! assert!(outcome.report.trace.iter().any(|line| line.contains("duplicate of orders-0@0")));
//! assert!(outcome.report.faults[0].has_changed());
//! # Ok::<_, bus_core::Error>(())
//! ```
//!
//! # Which kinds there are
//! By the numbers of the fault catalogue: of the network N1 and N5 (a message is late, perhaps
//! later than its retry), N4 (across connections), N6 (reset before a request is handled, or before
//! it is answered), N7 to N9 (links are cut, both ways or one way, also of clients); of processes
//! P1, P2, P3, P5, P6, P7, P10 (crash, loss of power, pause, in any order, of brokers and of the
//! application); of time T4 (a broker or process stands still); of the control plane K1, K3, K4
//! (preferred leaders, a new controller, coordinators that move, by faults of their brokers); of
//! the application A4 (a database refuses a commit, loses it or its answer, or is slow).
//!
//! Absent, because the simulator has no mechanism for them: of the network N2 and N3 without a
//! reset (TCP has none), N10 to N15 (clogs, bandwidth, bit flips, DNS, stale metadata, quotas); P4,
//! P8, P9, P11, P12 (slow processors, partial stalls, clones, versions, memory); all of D (disks);
//! T1 to T3 and T5 to T8 (clocks); K2 and K5 to K16 (reassignment, live configuration, retention,
//! expiry, exhaustion, quotas); R (injected error codes); S (scheduling). What an application does
//! to itself (the rest of A) is its own, but for the points at which it may crash
//! ([`Trigger::Reached`]).

mod commit;
mod draw;
mod fewer;
mod report;
#[cfg(feature = "proptest")]
pub mod strategy;
mod surroundings;
mod swarm;
pub(crate) mod text;
mod trigger;
mod validate;

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::{Partition, Topic};
use serde::{Deserialize, Serialize};

pub use commit::CommitFate;
pub use draw::{Drawn, Surroundings, draw};
pub use report::{FaultReport, Struck};
pub use trigger::{FactPattern, Stage, Trigger};

use crate::node::BrokerId;
use crate::protocol::Api;
use crate::time::SimTime;

/// The number of a fault in its plan. It stays when other faults are taken out of the plan.
pub type FaultId = u32;

/// What is done to a world, and when.
///
/// ```
/// use bus_sim::fault::Plan;
///
/// let plan: Plan = ron::from_str(r#"(
///     faults: [
///         (
///             id: 1,
///             when: Request(api: Produce, is: Answered, nth: 17),
///             fault: CrashBroker(Leader("orders", 0)),
///             until: Some(For("2s")),
///         ),
///         (id: 2, when: After(fault: 1, by: "500ms"), fault: PauseProcess("member-0")),
///     ],
///     quiesce_at: Some("60s"),
/// )"#)?;
/// assert!(plan.validate(3).is_ok());
/// # Ok::<_, ron::error::SpannedError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The faults, in any order.
    #[serde(default)]
    pub faults: Vec<Planned>,
    /// When all faults end, and none strikes any more: everything heals, and work must go on. None:
    /// never, unless the application asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesce_at: Option<SimTime>,
    /// Which faults strike at all.
    #[serde(default, skip_serializing_if = "Envelope::is_beyond")]
    pub envelope: Envelope,
}

/// How bad it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Envelope {
    /// Every fault strikes. What the configuration promises may break; but nobody lies about it.
    #[default]
    Beyond,
    /// What a configuration with several replicas promises to survive: a fault that takes a broker
    /// away (it is down, stands still, or is cut off from others or from the controller) strikes
    /// only if no broker is away and all replicas are in sync. With one replica, power is never
    /// lost; and what brokers say to each other is not late for long.
    Tolerated,
}

impl Envelope {
    const fn is_beyond(&self) -> bool {
        matches!(self, Self::Beyond)
    }
}

impl Plan {
    /// The plan without some faults, and without those that wait for one of them.
    #[must_use]
    pub fn without(&self, ids: &BTreeSet<FaultId>) -> Self {
        let mut gone = ids.clone();
        let mut plan = self.clone();
        loop {
            let before = plan.faults.len();
            plan.faults.retain(|planned| !gone.contains(&planned.id) && !planned.waits_for(&gone));
            gone = &gone | &self.ids().difference(&plan.ids()).copied().collect();
            if plan.faults.len() == before {
                return plan;
            }
        }
    }

    fn ids(&self) -> BTreeSet<FaultId> {
        self.faults.iter().map(|planned| planned.id).collect()
    }
}

/// A fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// Its number, from 1, which no other fault of the plan has.
    pub id: FaultId,
    /// When it strikes. It strikes once.
    pub when: Trigger,
    /// What it does.
    pub fault: Fault,
    /// When that ends: what is down starts again, what is cut heals, what is paused goes on. None:
    /// not before everything heals; of lost and late messages: with the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
}

impl Planned {
    /// Whether it strikes or ends after one of some faults.
    fn waits_for(&self, ids: &BTreeSet<FaultId>) -> bool {
        let waits = |trigger: &Trigger| match trigger {
            Trigger::After { fault, .. } => ids.contains(fault),
            _ => false,
        };
        let ends = match &self.until {
            Some(Until::When(trigger)) => waits(trigger),
            _ => false,
        };
        waits(&self.when) || ends
    }
}

/// When a fault ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Until {
    /// So long after it struck.
    For(#[serde(with = "text::duration")] Duration),
    /// At an event after it struck.
    When(Trigger),
}

macro_rules! faults {
    ($($(#[$meta:meta])+ $kind:ident $body:tt,)+) => {
        faults! {@fault [] $($(#[$meta])+ $kind $body,)+}

        /// Which kind of fault it is.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        pub enum FaultKind {
            $($(#[$meta])+ $kind,)+
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// Its name, as plans are written.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)+ }
            }
        }

        impl Fault {
            /// Which kind it is.
            pub const fn kind(&self) -> FaultKind {
                match self { $(Self::$kind { .. } => FaultKind::$kind,)+ }
            }
        }
    };
    (@fault [$($done:tt)*] $(#[$meta:meta])+ $kind:ident (), $($rest:tt)*) => {
        faults! {@fault [$($done)* $(#[$meta])+ $kind,] $($rest)*}
    };
    (@fault [$($done:tt)*] $(#[$meta:meta])+ $kind:ident $body:tt, $($rest:tt)*) => {
        faults! {@fault [$($done)* $(#[$meta])+ $kind $body,] $($rest)*}
    };
    (@fault [$($done:tt)*]) => {
        /// What is done to the world.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub enum Fault { $($done)* }
    };
}

faults! {
    /// A broker crashes: its memory is gone, its logs stay, its connections break.
    CrashBroker(Target),
    /// The machine of a broker loses power: what was not on disk yet is gone, too.
    LosePower(Target),
    /// A broker shuts down in good order: it hands over what it leads first. Its end is counted
    /// from when the shutdown begins.
    ShutDownBroker(Target),
    /// A broker stands still: it handles nothing and keeps its connections; its session runs out.
    FreezeBroker(Target),
    /// A broker is cut off from all other brokers and from the controller. Clients reach it.
    IsolateBroker(Target),
    /// The link between two brokers is cut.
    CutBrokers(Target, Target),
    /// What the first broker sends does not reach the second; the other way it does.
    CutOneWay(Target, Target),
    /// The link between a broker and the controller is cut: it is fenced, and does not know.
    CutFromController(Target),
    /// The link between a process and a broker is cut.
    CutProcess(String, Target),
    /// All connections between a process and a broker are reset, and what is under way on them is
    /// lost.
    ResetConnections(String, Target),
    /// The active controller crashes. The others elect the next by themselves.
    CrashController(),
    /// Preferred leaders that are in sync are elected.
    ElectPreferred(),
    /// Requests are lost, each with its connection: they are never handled.
    LoseRequest(Messages),
    /// Responses are lost, each with its connection: their requests were handled.
    LoseResponse(Messages),
    /// Requests are late, and what is behind them on their connections. They are handled even if
    /// their clients gave up and sent them again.
    DelayRequest(Messages, #[serde(with = "text::duration")] Duration),
    /// Responses are late, and what is behind them on their connections.
    DelayResponse(Messages, #[serde(with = "text::duration")] Duration),
    /// A process of the application crashes: what it held in memory is gone.
    CrashProcess(String),
    /// A process of the application stands still, and goes on later as if no time had passed.
    PauseProcess(String),
    /// Commits of a process at a database are refused, as after a deadlock: nothing happens, and
    /// the process is told so.
    RefuseCommit(String, String),
    /// Commits of a process at a database are lost, each with its connection: nothing happens, and
    /// the process does not learn whether it did.
    LoseCommit(String, String),
    /// The answers to commits of a process at a database are lost, each with its connection: what
    /// is committed has happened, and the process does not learn whether it did.
    LoseCommitAnswer(String, String),
    /// Commits of a process at a database are late. They happen even if the process gave up and
    /// tries again.
    DelayCommit(String, String, #[serde(with = "text::duration")] Duration),
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// By its number, from 1.
    Broker(BrokerId),
    /// The one that leads a partition, as the controller knows it.
    Leader(Topic, Partition),
    /// The first replica of a partition that does not lead it, in sync if there is such a one.
    Follower(Topic, Partition),
    /// The coordinator of a group.
    GroupCoordinator(String),
    /// The coordinator of a transactional id.
    TransactionCoordinator(String),
}

/// Who sends or receives a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Party {
    /// Any broker.
    AnyBroker,
    /// A broker.
    Broker(BrokerId),
    /// The controller.
    Controller,
    /// Any process.
    AnyProcess,
    /// A process; `main` is what is outside of every named one.
    Process(String),
}

/// Which messages are lost or late, all of one API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Messages {
    /// Their API.
    pub api: Api,
    /// Who sends the requests; none for anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Party>,
    /// Who handles the requests; none for anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Party>,
}

impl Messages {
    /// All messages of an API.
    pub const fn of(api: Api) -> Self {
        Self { api, from: None, to: None }
    }
}
