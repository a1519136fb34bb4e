//! The trace: what the simulator did, as a hash chain and, if asked for, as lines.
//!
//! A line is `time node what`, for example
//! `0.001204331 broker-1 <- client-0#0 Produce/3 9f3a51c07be21d44`. The format has a version, which
//! is the first line of a recorded trace.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::config::SimConfig;
use crate::digest::Digest;
use crate::fact::{Fact, ToldFact};
use crate::node::NodeId;
use crate::time::SimTime;

/// The first line of a recorded trace.
pub(crate) const TRACE_HEADER: &str = "bus-sim trace 1";

/// The trace of a world.
#[derive(Debug)]
pub(crate) struct Trace {
    chain: Digest,
    events: u64,
    lines: Option<Vec<String>>,
    facts: Option<Vec<ToldFact>>,
}

impl Trace {
    /// An empty trace that keeps its lines or only their hash, and its facts or not.
    pub(crate) fn new(config: &SimConfig) -> Self {
        let lines = config.record_trace.then(|| vec![TRACE_HEADER.to_owned()]);
        let facts = config.record_facts.then(Vec::new);
        Self { chain: Digest::new(), events: 0, lines, facts }
    }

    /// Adds a fact that a node told.
    pub(crate) fn fact(&mut self, now: SimTime, node: NodeId, fact: Fact) {
        self.add(now, &fact, || format!("{node} ! {fact}"));
        if let Some(facts) = &mut self.facts {
            facts.push(ToldFact { event: self.events, at: now, node, fact });
        }
    }

    /// Adds an event: `key` to the hash, `line` to the lines.
    pub(crate) fn add(&mut self, now: SimTime, key: impl Hash, line: impl FnOnce() -> String) {
        self.events += 1;
        now.as_nanos().hash(&mut self.chain);
        key.hash(&mut self.chain);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{now} {}", line()));
        }
    }

    /// How many events there were.
    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    /// The hash of all events so far.
    pub(crate) fn hash(&self) -> TraceHash {
        TraceHash(self.chain.finish())
    }

    /// The facts, if they were kept.
    pub(crate) fn take_facts(&mut self) -> Vec<ToldFact> {
        self.facts.take().unwrap_or_default()
    }

    /// The lines, if they were kept.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}

/// The hash of a trace: equal traces have equal hashes, in every process and on every machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceHash(pub u64);

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
