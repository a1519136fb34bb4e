//! What a backend gives to the cases: buses, and the powers that only some backends have.

use std::fmt;
use std::time::Duration;

use bus_core::{BoxFuture, Bus, Result};

use crate::script::Script;

/// A fresh world for one case.
pub trait Fixture: Send + Sync {
    /// The bus of the case.
    fn bus(&self) -> Bus;

    /// A bus on the same cluster, made apart from the first.
    fn another_bus(&self) -> BoxFuture<'_, Result<Bus>>;

    /// A URL of this backend that is right; options may be added behind it.
    fn url(&self) -> String;

    /// A bus whose brokers do not answer, until [`Fault::Heal`]; or the error that says so, within
    /// about `timeout`.
    fn unreachable(&self, timeout: Duration) -> BoxFuture<'_, Result<Bus>>;

    /// How many brokers the cluster has, from number 1 on.
    fn brokers(&self) -> i32;

    /// Whether this broker runs, as far as the fixture can know.
    fn is_broker_up(&self, broker: i32) -> bool;

    /// Whether waiting costs no real time.
    fn is_virtual_time(&self) -> bool;

    /// Starts a process of this name that runs a script.
    ///
    /// # Errors
    /// Why it cannot be started.
    fn start(&self, process: &str, script: Script) -> Result<(), String>;

    /// Makes something fail, or work again.
    ///
    /// # Errors
    /// Why it cannot be done.
    fn inflict(&self, fault: &Fault) -> Result<(), String>;
}

/// A power that a case needs and that not every backend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Virtual time: an hour passes at once.
    VirtualTime,
    /// Processes that crash, pause, and restart.
    Processes,
    /// Brokers that crash, shut down, and restart.
    Brokers,
    /// Three brokers, each with a replica of every partition.
    Replicas,
    /// Links that are cut.
    Links,
    /// Requests and responses that are lost.
    Losses,
}

/// Something that fails, or works again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is gone at once, without a word to anyone.
    Crash(String),
    /// The process stands still, its timers included.
    Pause(String),
    /// The paused process goes on, and does not know that it was paused.
    Resume(String),
    /// The crashed process starts again, with the same script.
    Restart(String),
    /// All brokers are gone at once; what they have flushed stays.
    CrashBrokers,
    /// The brokers are back.
    RestartBrokers,
    /// This broker is gone at once.
    CrashBroker(i32),
    /// This broker hands its partitions over and is gone, soon.
    ShutdownBroker(i32),
    /// This broker is back.
    RestartBroker(i32),
    /// The other brokers fetch nothing from this one; for a moment, or the controller misses them.
    StallFollowers(i32),
    /// They fetch again.
    ResumeFollowers(i32),
    /// No broker and this process hear each other.
    Cut(String),
    /// All links work, and all brokers are up.
    Heal,
    /// The next request of this API never arrives.
    LoseRequest(Api),
    /// The next request of this API is carried out, and its response never arrives.
    LoseResponse(Api),
}

/// A request of Kafka's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is Kafka's request of that name")]
pub enum Api {
    Produce,
    Fetch,
    OffsetCommit,
    JoinGroup,
    SyncGroup,
    Heartbeat,
    InitProducerId,
    AddPartitionsToTxn,
    AddOffsetsToTxn,
    TxnOffsetCommit,
    EndTxn,
    WriteTxnMarkers,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
