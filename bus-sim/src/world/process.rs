//! Processes: the parts of an application that crash, pause, and restart as one.

use crate::node::{ClientId, Input};

/// The number of a process in the world.
pub(crate) type ProcessId = usize;

/// The application outside of every named process; it cannot crash.
pub(crate) const MAIN: ProcessId = 0;

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    /// The name, unique in the world.
    pub(crate) name: String,
    /// How often it was started, from 1. Clients of an older incarnation are dead.
    pub(crate) incarnation: u32,
    /// What it does.
    pub(crate) state: ProcessState,
    /// How many clients each incarnation made so far: they are named by it.
    pub(crate) clients_made: u32,
    /// What arrived while it was paused.
    pub(crate) inbox: Vec<(ClientId, Input)>,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessState {
    /// It runs.
    Running,
    /// It stands still: nothing is lost, but nothing is handled and no task is polled.
    Paused,
    /// It is gone; what it held in memory is lost.
    Crashed,
}

impl Process {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            incarnation: 1,
            state: ProcessState::Running,
            clients_made: 0,
            inbox: Vec::new(),
        }
    }
}
