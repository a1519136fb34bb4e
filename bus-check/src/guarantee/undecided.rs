//! What the reference of checks names and no checker decides, each with the reason.

/// A guarantee that no checker decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotDecided {
    /// Its id in the reference of checks.
    pub id: &'static str,
    /// What breaking it is called.
    pub name: &'static str,
    /// Why it is not decided.
    pub reason: &'static str,
}

const fn not(id: &'static str, name: &'static str, reason: &'static str) -> NotDecided {
    NotDecided { id, name, reason }
}

/// All of them, in the order of the reference.
pub const NOT_DECIDED: &[NotDecided] = &[
    not("A9", "torn batch", "the history knows records, not batches"),
    not("B7", "torn visibility", "the history knows records, not batches"),
    not("B8", "tombstone resurrection", "compaction is not modeled"),
    not("B9", "retention lie", "retention is not modeled"),
    not("C10", "cancelled send", "a send cannot be cancelled: dropping its delivery is no cancel"),
    not("D8", "divergent prefix", "it is A1 and A10, seen from farther away"),
    not("D11", "abort rewind", "no promise: after an abort the application itself seeks back"),
    not("D13", "consume lag", "a measure, not a promise"),
    not("E13", "false expulsion", "needs the arrival of heartbeats, which no fact tells yet"),
    not("E14", "static membership", "needs who is which instance, which no fact tells yet"),
    not("E15", "assignor quality", "a measure, not a promise"),
    not("E16", "stale metadata commit", "topic ids are not modeled"),
    not("F3", "precommitted read", "F2 covers it"),
    not("F13", "marker rules", "needs the producer of each batch, which no fact tells yet"),
    not("F15", "read cycle", "not written yet"),
    not("F16", "cycles with writes", "Kafka promises nothing of them"),
    not("G2", "complete candidates", "G1 decides it when one of them leads"),
    not("G5", "metadata log matching", "the metadata log is not replicated in the simulator"),
    not("G6", "consistent read", "D7 and A1 decide it from what consumers saw"),
    not("G7", "recovery quorum", "G1 and G8 decide what comes of it"),
    not("G13", "producer state", "A2 and C4 see it; no fact tells the state itself"),
    not("G14", "group state", "E8 sees it; no fact tells the state itself"),
    not("G15", "transaction state", "F5 and F12 see it; no fact tells the state itself"),
    not("G16", "controller quorum", "the quorum of controllers is one node in the simulator"),
    not("G17", "stale in-sync change", "refused changes are no facts yet"),
    not("G18", "message conservation", "messages are no facts"),
    not("H6", "transactions resolve", "F12 decides it"),
    not("H7", "metadata converges", "needs what every node believes"),
    not("H8", "livelock", "needs the hash of the whole state"),
    not("H10", "poison record", "belongs to the application runtime, which does not exist yet"),
    not("H11", "backpressure", "belongs to the application runtime, which does not exist yet"),
    not("I", "contracts of the bus", "belong to the application runtime, which does not exist yet"),
];
