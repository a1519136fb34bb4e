//! The guarantees: what Kafka and the bus promise, by id, with the condition of each.
//!
//! Ids are those of the reference of checks; what of it is not decided stands in [`NOT_DECIDED`],
//! each with the reason. [`Guarantee::table`] prints all of it.

mod names;
mod undecided;

use std::fmt;

pub use names::UnknownGuarantee;
pub use undecided::{NOT_DECIDED, NotDecided};

macro_rules! guarantees {
    ($($id:ident, $name:literal, $sentence:literal, $condition:literal;)+) => {
        /// A guarantee. Its text form is its id; [`str::parse`] takes the id or the name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Guarantee {
            $(#[doc = $sentence] $id,)+
        }

        impl Guarantee {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$id),+];

            /// The id, such as `A1`.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$id => stringify!($id),)+ }
            }

            /// What breaking it is called.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$id => $name,)+ }
            }

            /// What is promised.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$id => $sentence,)+ }
            }

            /// Under which condition.
            pub const fn condition(self) -> &'static str {
                match self { $(Self::$id => $condition,)+ }
            }
        }
    };
}

guarantees! {
    A1, "inconsistent offset",
        "An offset of a partition holds one record, for ever.",
        "SAFE; between consumers: no unclean election";
    A2, "duplicate append",
        "A record that was sent once is in the log once.",
        "idempotence, or no retries";
    A3, "garbage read",
        "What is read was sent, to this topic and partition, before.",
        "always";
    A4, "mutated record",
        "Key, value, headers, and timestamp are read as they were sent.",
        "no end of a log is given up";
    A5, "misrouted record",
        "A record is in the partition that was asked for, or that its key maps to.",
        "always; after the topic grew, either mapping";
    A6, "hole",
        "Offsets follow each other without holes.",
        "no transactions, compaction, or retention";
    A7, "read below the log start",
        "What was deleted is not read by a session that begins later.",
        "records were deleted by an administrator";
    A8, "wrong offset told",
        "A delivered record is at the offset that its producer was told.",
        "acks 1 or all, no end of a log is given up";
    A10, "disagreeing neighbors",
        "Readers of one isolation level see the same record next.",
        "as A1; no compaction or retention";
    B1, "lost write",
        "A delivered record is not passed over by readers that read on behind it.",
        "SAFE, acks all";
    B2, "lost write, finally",
        "When all is over, every delivered record is in the log.",
        "SAFE, acks all";
    B3, "resurrected send",
        "What definitely failed to be sent is never read.",
        "always";
    B4, "committed truncation",
        "A follower gives up no committed record that its leader holds.",
        "always";
    B5, "premature ack",
        "A record is acknowledged when all replicas in sync have it, and enough of them are.",
        "acks all; topics with several replicas";
    B6, "end offset regress",
        "The end of a partition never goes back.",
        "no unclean election";
    C1, "nonmonotonic send",
        "A record sent after another of its producer was acknowledged is behind it.",
        "SAFE";
    C2, "pipelined inversion",
        "Records of one producer are in the order of its calls.",
        "idempotence, or one request in flight; no unclean election";
    C3, "realtime inversion",
        "A record sent after another producer's was acknowledged is behind it.",
        "SAFE";
    C4, "silent sequence hole",
        "A record of a producer is not left out where a later one is there.",
        "idempotence";
    C5, "completion not once",
        "Every send completes exactly once.",
        "always";
    C6, "completions out of order",
        "Deliveries of one producer and partition complete in the order of the calls.",
        "idempotence, or one request in flight";
    C7, "zombie append",
        "After a newer producer of its transactional id is there, an older one appends nothing.",
        "always";
    C8, "false fencing",
        "A producer is fenced only by a newer one, or after its transaction timed out.",
        "none of its requests for an epoch comes late";
    C9, "flush too early",
        "When a flush or a commit returns, the sends before it are complete.",
        "always";
    D1, "nonmonotonic poll, within",
        "Within a poll, offsets of a partition rise.",
        "always";
    D2, "skipped record, within",
        "Within a poll, no visible record is left out.",
        "no compaction or retention";
    D3, "nonmonotonic poll",
        "From poll to poll of a session, offsets of a partition rise.",
        "no unclean election";
    D4, "skipped record",
        "From poll to poll of a session, no visible record is left out.",
        "no compaction, retention, or unclean election";
    D5, "wrong start",
        "A session without its own place starts at the committed offset or by the reset policy.",
        "always";
    D6, "wrong seek",
        "After a seek or an assignment to a place, the next record is the one there.",
        "always; out of range, the reset policy";
    D7, "future read",
        "What a consumer reads is below the high watermark.",
        "no unclean election; topics with several replicas";
    D9, "stale end",
        "An end that is asked for after a delivery lies behind its record.",
        "acks all, SAFE, its leader has heard of all elections";
    D10, "delivery not due",
        "Nothing is returned of a paused partition, or of one that is not owned.",
        "always";
    D12, "poll too large",
        "A poll returns at most `max.poll.records`.",
        "always";
    E1, "double ownership",
        "In one generation a partition belongs to one member.",
        "always";
    E2, "overlapping ownership",
        "A partition has one owner at a time among the members that are alive and responsive.",
        "the older one polls, and is not told later that it was given up";
    E3, "zombie commit",
        "A member of an old generation commits nothing.",
        "eager groups with members";
    E4, "commit out of nowhere",
        "What is committed is what somebody committed.",
        "always";
    E5, "committed too far",
        "A commit does not pass a record that its group was not given, or did not settle.",
        "commits after handling, or auto commit";
    E6, "skipped by the group",
        "A group commits past no visible record that it was never given.",
        "commits after handling, or in transactions";
    E7, "given again after the commit",
        "A record is given to a group again only if its commit was not certain.",
        "always; at most once: never";
    E8, "lost commit",
        "Who asks what is committed is told the last commit.",
        "the offsets topic is SAFE, its leader has caught up";
    E9, "incomplete assignment",
        "In a settled group every partition has one owner.",
        "after quiescence, members left";
    E10, "illegal hand-over",
        "A partition is given away only when its owner has completed the revocation.",
        "the owner is responsive";
    E11, "callback protocol",
        "What is revoked was assigned, and what is assigned is not owned already.",
        "always";
    E12, "generation regress",
        "The generation of a member never goes back.",
        "the group is not deleted";
    F1, "aborted read",
        "No record of an aborted transaction is read.",
        "read_committed";
    F2, "dirty read",
        "No record of a transaction is read before its commit is called for.",
        "read_committed";
    F4, "torn transaction",
        "When all is over, all records of a transaction are visible, or none.",
        "read_committed, SAFE";
    F5, "lost transaction",
        "When all is over, all records of a committed transaction are visible.",
        "SAFE";
    F6, "phantom commit",
        "When all is over, no record of a transaction that did not commit is visible.",
        "read_committed";
    F7, "split transaction",
        "A transaction whose commit is unknown is visible as a whole or not at all.",
        "read_committed, SAFE";
    F8, "offsets without outputs",
        "Offsets of a transaction count if and only if it committed.",
        "the offsets topic is SAFE";
    F9, "zombie transaction",
        "After a newer producer of its transactional id is there, an older one commits nothing.",
        "always";
    F10, "duplicate output",
        "One input makes one visible output in a topic.",
        "transactional applications that name the input in a header";
    F11, "missing output",
        "An input whose offset a transaction committed has its output.",
        "transactional applications that name the input in a header";
    F12, "hanging transaction",
        "When all is over, the last stable offset is the high watermark.",
        "no transaction is open";
    F14, "transactions out of order",
        "Transactions of one id are visible in the order of their commits.",
        "SAFE";
    F17, "producer id given twice",
        "A producer id belongs to one transactional id, and its epoch never goes back.",
        "always";
    F18, "illegal transaction state",
        "A transaction moves only as its coordinator's state machine allows.",
        "always";
    F19, "commit without a record",
        "A transaction commits only if each of its records was delivered.",
        "always, but for what a send refuses for its arguments";
    G1, "incomplete leader",
        "A new leader has every committed record.",
        "no unclean election, no lossy crash of a replica in sync";
    G3, "high watermark out of sync",
        "The high watermark is at most where the shortest log in sync ends.",
        "no lossy crash of a replica in sync";
    G4, "diverging logs",
        "Below the high watermark, replicas in sync hold the same records.",
        "no unclean election";
    G8, "committed record gone",
        "A committed record is on one replica at least.",
        "no unclean election, no lossy crash of a replica in sync";
    G9, "two leaders",
        "An epoch has one leader, and epochs rise.",
        "always";
    G10, "high watermark regress",
        "While a leader leads, its high watermark never goes back.",
        "no unclean election";
    G11, "leader out of sync",
        "The leader that is elected is in sync, or eligible (ELR) when nobody is, or the last one.",
        "no unclean election";
    G12, "in sync too early",
        "A replica joins those in sync when it has all that is committed.",
        "no lossy crash";
    H1, "operation without end",
        "Every operation ends.",
        "after quiescence";
    H2, "record not delivered",
        "Every visible record reaches every reader that waits for it.",
        "after quiescence";
    H3, "partition without leader",
        "Every partition gets a leader.",
        "after quiescence, all brokers up";
    H4, "out of sync for ever",
        "All replicas are in sync again.",
        "after quiescence, all brokers up";
    H5, "rebalance storm",
        "A group that nobody joins or leaves stops rebalancing.",
        "after quiescence";
    H9, "close too late",
        "A close ends within its deadline.",
        "always";
}

/// What a guarantee is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Black box: the history alone, on every backend.
    History,
    /// White box: what happened inside of the cluster, which a simulator tells.
    Cluster,
    /// Both: what clients saw, against what happened.
    Both,
}

impl View {
    /// The view in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::History => "black box",
            Self::Cluster => "white box",
            Self::Both => "both",
        }
    }
}

impl Guarantee {
    /// All of them, in order.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        Self::ALL.iter().copied()
    }

    /// What it is judged by.
    pub const fn view(self) -> View {
        match self {
            Self::B5 | Self::D7 => View::Both,
            Self::B4 | Self::F17 | Self::F18 | Self::H3 | Self::H4 => View::Cluster,
            Self::G1 | Self::G3 | Self::G4 | Self::G8 => View::Cluster,
            Self::G9 | Self::G10 | Self::G11 | Self::G12 => View::Cluster,
            _ => View::History,
        }
    }

    /// All guarantees as a table in Markdown, with those that are not decided.
    pub fn table() -> impl fmt::Display {
        Table
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id(), self.name())
    }
}

struct Table;

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Id | Name | Promised | If | Judged by |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        for guarantee in Guarantee::all() {
            let (id, name, view) = (guarantee.id(), guarantee.slug(), guarantee.view().name());
            let (sentence, condition) = (guarantee.sentence(), guarantee.condition());
            writeln!(f, "| {id} | `{name}` | {sentence} | {condition} | {view} |")?;
        }
        writeln!(f, "\n| Id | Name | Not decided, because |\n|---|---|---|")?;
        for NotDecided { id, name, reason } in NOT_DECIDED {
            writeln!(f, "| {id} | {name} | {reason} |")?;
        }
        Ok(())
    }
}
