//! Processes: the parts of an application that crash, pause, stall, and restart as one, with their
//! clients.

use bus_core::{Error, ErrorKind, Result};

use crate::client::ClientMachine;
use crate::digest::Digest;
use crate::event::{Change, EventSeq, Place};
use crate::node::{ClientId, Effects, Input, NodeId};
use crate::time::SimTime;

use super::{ClientSlot, World};

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
    pub(crate) inbox: Vec<(ClientId, Input, EventSeq)>,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessState {
    /// It runs.
    Running,
    /// It stands still: nothing is lost, but nothing is handled and no task is polled.
    Paused,
    /// Its tasks are not polled, while its clients go on: they have threads of their own.
    Stalled,
    /// It is gone; what it held in memory is lost.
    Crashed,
}

/// What became of a process, for its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessChange {
    Crashed,
    Restarted,
    Paused,
    Stalled,
    Resumed,
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

/// Processes and their clients.
impl World {
    /// Adds a client to a process and starts it.
    pub(crate) fn add_client(
        &mut self,
        process: ProcessId,
        make: impl FnOnce(NodeId, u64) -> ClientMachine,
    ) -> ClientId {
        let id = ClientId::try_from(self.clients.len()).unwrap_or(ClientId::MAX);
        let owner = &mut self.processes[process];
        let ordinal = owner.clients_made;
        owner.clients_made += 1;
        let name = Digest::of(&(owner.name.as_str(), owner.incarnation, ordinal));
        let machine = make(NodeId::Client(id), name);
        self.clients.push(ClientSlot { machine, process, name, is_alive: true });
        self.start_node(NodeId::Client(id));
        id
    }

    /// Gives a client something to do. Nothing happens if it is dead.
    pub(crate) fn with_client<T>(
        &mut self,
        id: ClientId,
        act: impl FnOnce(&mut ClientMachine, SimTime, &mut Effects) -> T,
    ) -> Option<T> {
        let slot = &mut self.clients[id as usize];
        if !slot.is_alive {
            return None;
        }
        let mut effects = std::mem::take(&mut self.effects);
        let result = act(&mut slot.machine, self.now, &mut effects);
        self.record_call(NodeId::Client(id), effects.call.take());
        self.carry_out(NodeId::Client(id), &mut effects);
        self.effects = effects;
        Some(result)
    }

    /// Ends a client: its connections close, its timers stop.
    pub(crate) fn remove_client(&mut self, id: ClientId) {
        let slot = &mut self.clients[id as usize];
        if !slot.is_alive {
            return;
        }
        slot.is_alive = false;
        let node = NodeId::Client(id);
        self.record_end(node);
        self.queue.cancel_timers_of(node);
        for connection in self.network.connections_of(node) {
            self.disconnect(connection, node);
        }
    }

    /// Adds a process that runs.
    pub(crate) fn add_process(&mut self, name: &str) -> Result<ProcessId> {
        if self.process_ids.contains_key(name) {
            let message = format!("process {name:?} exists already; restart it instead");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let id = self.processes.len();
        self.processes.push(Process::new(name));
        self.process_ids.insert(name.to_owned(), id);
        self.record_note(format!("process {name} starts"));
        self.record_change(self.place_of_process(id), Change::Started);
        Ok(id)
    }

    /// The process of that name.
    pub(crate) fn process_id(&self, name: &str) -> Result<ProcessId> {
        self.process_ids.get(name).copied().ok_or_else(|| {
            let known = self.process_ids.keys().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("no process {name:?}; there are {known}");
            Error::new(ErrorKind::InvalidArgument, message)
        })
    }

    /// A process.
    pub(crate) fn process(&self, id: ProcessId) -> &Process {
        &self.processes[id]
    }

    /// Crashes a process: its clients are dead, their calls never complete.
    pub(crate) fn crash_process(&mut self, id: ProcessId) {
        self.note(format!("process {} crashes", self.processes[id].name));
        self.record_change(self.place_of_process(id), Change::Crashed);
        let process = &mut self.processes[id];
        process.state = ProcessState::Crashed;
        process.inbox.clear();
        for client in 0..self.clients.len() {
            if self.clients[client].process == id {
                self.remove_client(ClientId::try_from(client).unwrap_or(ClientId::MAX));
            }
        }
    }

    /// Starts a crashed process again, as its next incarnation.
    pub(crate) fn restart_process(&mut self, id: ProcessId) {
        self.note(format!("process {} restarts", self.processes[id].name));
        self.record_change(self.place_of_process(id), Change::Started);
        let process = &mut self.processes[id];
        process.state = ProcessState::Running;
        process.incarnation += 1;
        process.clients_made = 0;
    }

    /// Pauses a process: what reaches it waits.
    pub(crate) fn pause_process(&mut self, id: ProcessId) {
        self.note(format!("process {} pauses", self.processes[id].name));
        self.record_change(self.place_of_process(id), Change::Paused);
        self.processes[id].state = ProcessState::Paused;
    }

    /// Stalls a process: nobody takes what its clients have for it.
    pub(crate) fn stall_process(&mut self, id: ProcessId) {
        self.note(format!("process {} stalls", self.processes[id].name));
        self.record_change(self.place_of_process(id), Change::Stalled);
        self.processes[id].state = ProcessState::Stalled;
        self.set_stalled(id, true);
    }

    fn set_stalled(&mut self, process: ProcessId, is_stalled: bool) {
        for client in 0..self.clients.len() {
            if self.clients[client].process == process {
                let id = ClientId::try_from(client).unwrap_or(ClientId::MAX);
                self.with_client(id, |machine, now, effects| {
                    machine.set_stalled(is_stalled, now, effects);
                });
            }
        }
    }

    /// Resumes a paused or stalled process: it handles what has waited.
    pub(crate) fn resume_process(&mut self, id: ProcessId) {
        self.note(format!("process {} resumes", self.processes[id].name));
        self.record_change(self.place_of_process(id), Change::Resumed);
        let was = std::mem::replace(&mut self.processes[id].state, ProcessState::Running);
        if was == ProcessState::Stalled {
            self.set_stalled(id, false);
        }
        for (client, input, arrived) in std::mem::take(&mut self.processes[id].inbox) {
            self.recorder.current = arrived;
            self.deliver_to_client(client, input);
        }
    }

    pub(super) fn place_of_process(&self, id: ProcessId) -> Place {
        Place::Process(self.processes[id].name.as_str().into())
    }

    /// Who waits for what, for the report of a stall.
    pub(crate) fn waiting(&self) -> String {
        let waiting = self.clients.iter().filter(|slot| slot.is_alive).filter_map(|slot| {
            let what = slot.machine.waiting()?;
            Some(format!("process {}: {what}", self.processes[slot.process].name))
        });
        let waiting = waiting.collect::<Vec<_>>();
        if waiting.is_empty() {
            "no call on the bus, so the application waits for something else".to_owned()
        } else {
            waiting.join("; ")
        }
    }
}
