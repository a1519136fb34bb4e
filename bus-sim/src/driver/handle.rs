//! The handle of a simulation: what its application, or the test around it, can do to the world.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{Bus, Error, ErrorKind, Result};

use crate::explore::Violation;
use crate::fault::CommitFate;
use crate::protocol::Api;
use crate::time::SimTime;
use crate::world::{Action, Direction, Endpoint, MAIN, ProcessId, ProcessState, Rule, Side, World};

use super::bus::{SimBus, over, start_process};
use super::process::Control;
use super::{Shared, SimReport};

/// The handle of a simulation. Cheap to clone.
///
/// A process is what [`Bus::process`] started, by its name. What is done to it or to a broker
/// happens at once, between two events.
#[derive(Clone, Debug)]
pub struct SimHandle {
    shared: Arc<Shared>,
    main: Arc<Control>,
}

impl SimHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, main: Control::running() }
    }

    /// The handle of the simulation that a bus belongs to, if it is a simulated one.
    pub fn of(bus: &Bus) -> Option<Self> {
        let bus = bus.native().downcast_ref::<SimBus>()?;
        Some(Self::new(Arc::clone(&bus.shared)))
    }

    /// The bus of the application outside of every named process.
    pub fn bus(&self) -> Bus {
        Bus::new(Arc::new(SimBus {
            shared: Arc::clone(&self.shared),
            process: MAIN,
            incarnation: 1,
            control: Arc::clone(&self.main),
        }))
    }

    /// The time of the world.
    pub fn now(&self) -> SimTime {
        self.shared.enter(|world| world.now()).unwrap_or_default()
    }

    /// Crashes a process: what it held in memory is gone, calls under way never complete, and its
    /// connections break. Its tasks are dropped only after it cannot reach the bus any more.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such process; [`ErrorKind::InvalidState`] if
    /// it has crashed already.
    pub fn crash(&self, process: &str) -> Result<()> {
        let may = |state| state != ProcessState::Crashed;
        self.change(process, may, World::crash_process, ProcessState::Crashed)
    }

    /// Pauses a process, as a long garbage collection or a stopped machine does: its tasks are not
    /// polled, its clients answer nothing, its connections stay.
    ///
    /// # Errors
    /// As [`crash`](Self::crash).
    pub fn pause(&self, process: &str) -> Result<()> {
        let may = |state| state == ProcessState::Running;
        self.change(process, may, World::pause_process, ProcessState::Paused)
    }

    /// Stalls a process, as a deadlock or a call that hangs does: its tasks are not polled, while
    /// its clients go on, as the threads of librdkafka do. A consumer sends heartbeats and fetches,
    /// until `max.poll.interval.ms` is over and it leaves its group; a producer sends what it has.
    ///
    /// # Errors
    /// As [`crash`](Self::crash).
    pub fn stall(&self, process: &str) -> Result<()> {
        let may = |state| state == ProcessState::Running;
        self.change(process, may, World::stall_process, ProcessState::Stalled)
    }

    /// Resumes a paused or stalled process: it goes on as if no time had passed, perhaps as a
    /// zombie.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]; [`ErrorKind::InvalidState`] if it does not stand still.
    pub fn resume(&self, process: &str) -> Result<()> {
        let may = |state| matches!(state, ProcessState::Paused | ProcessState::Stalled);
        self.change(process, may, World::resume_process, ProcessState::Running)
    }

    /// Starts a crashed process again.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]; [`ErrorKind::InvalidState`] if it has not crashed.
    pub fn restart(&self, process: &str) -> Result<()> {
        let id = self.in_state(process, |state| state == ProcessState::Crashed)?;
        self.enter(|world| {
            world.restart_process(id);
            Ok(())
        })?;
        if let Some(start) = self.shared.processes.start(id) {
            start_process(&self.shared, id, start);
        }
        Ok(())
    }

    /// Crashes a broker: its memory is gone, its logs stay, its connections break.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such broker.
    pub fn crash_broker(&self, broker: i32) -> Result<()> {
        self.enter(|world| {
            world.check_broker(broker)?;
            world.crash_broker(broker, false);
            Ok(())
        })
    }

    /// Takes the power of a broker's machine: what it had not written to disk is gone too.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such broker.
    pub fn lose_power(&self, broker: i32) -> Result<()> {
        self.enter(|world| {
            world.check_broker(broker)?;
            world.crash_broker(broker, true);
            Ok(())
        })
    }

    /// Shuts a broker down in good order: it hands over what it leads, and is down a little later,
    /// once the controller allows it. Nothing happens if it is down.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such broker.
    pub fn shutdown_broker(&self, broker: i32) -> Result<()> {
        self.enter(|world| {
            world.check_broker(broker)?;
            world.shut_down_broker(broker);
            Ok(())
        })
    }

    /// Whether a broker is up: it was not crashed, and is not yet shut down.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such broker.
    pub fn is_broker_up(&self, broker: i32) -> Result<bool> {
        self.enter(|world| {
            world.check_broker(broker)?;
            Ok(world.is_broker_up(broker))
        })
    }

    /// Crashes the active controller: until another is elected, two to three seconds later, no
    /// broker is fenced, no leader elected, and no topic created.
    pub fn crash_controller(&self) {
        // After the end of the simulation there is nothing to crash.
        let _over = self.shared.enter(World::crash_controller);
    }

    /// Elects the preferred leaders that are in sync, as `kafka-leader-election.sh` does for all
    /// partitions. Nothing happens while no controller is active.
    pub fn elect_preferred(&self) {
        // After the end of the simulation there is nobody to elect.
        let _over = self.shared.enter(World::elect_preferred);
    }

    /// Starts a broker that is down; nothing happens if it is up.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such broker.
    pub fn restart_broker(&self, broker: i32) -> Result<()> {
        self.enter(|world| {
            world.check_broker(broker)?;
            world.restart_broker(broker);
            Ok(())
        })
    }

    /// Lets a broker stand still, as a stopped process or a frozen machine does: it handles
    /// nothing, its connections stay, its session with the controller runs out. Returns whether it
    /// was moving.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such broker.
    pub fn freeze_broker(&self, broker: i32) -> Result<bool> {
        self.enter(|world| {
            world.check_broker(broker)?;
            Ok(world.freeze_broker(broker))
        })
    }

    /// Lets a broker go on that stands still: it handles what has waited, as if no time had passed.
    /// Nothing happens if it moves.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such broker.
    pub fn thaw_broker(&self, broker: i32) -> Result<()> {
        self.enter(|world| {
            world.check_broker(broker)?;
            world.thaw_broker(broker);
            Ok(())
        })
    }

    /// Ends all faults: links heal, brokers that are down or stand still go on, processes that have
    /// crashed start again, paused ones go on, and no message is lost or late any more. No fault of
    /// the [plan](crate::fault::Plan) strikes from now on. A controller that has crashed is
    /// followed by the next by itself. What is then not done in time is a bug.
    pub fn quiesce(&self) {
        // After the end of the simulation there is nothing to heal.
        let _over = self.shared.enter(World::quiesce);
    }

    /// Has `judge` look at the simulation when it is over, also if it stalled. What it finds is in
    /// [`Outcome::violations`](crate::Outcome::violations), and
    /// [exploration](crate::explore) takes it as what the application itself returns.
    ///
    /// ```
    /// use bus_sim::Sim;
    /// use bus_sim::explore::Violation;
    ///
    /// let outcome = Sim::new(Default::default())?.run(|sim| async move {
    ///     sim.judge_afterwards(|report| {
    ///         let is_long = report.virtual_time.as_secs() > 60;
    ///         is_long.then(|| Violation::new("short", "it took minutes")).into_iter().collect()
    ///     });
    ///     tokio::time::sleep(std::time::Duration::from_secs(90)).await;
    /// });
    /// assert_eq!(outcome.violations.len(), 1);
    /// # Ok::<_, bus_core::Error>(())
    /// ```
    pub fn judge_afterwards(
        &self,
        judge: impl FnOnce(&SimReport) -> Vec<Violation> + Send + 'static,
    ) {
        self.shared.judges.lock().push(Box::new(judge));
    }

    /// Says that a process is at a crash point of the application, between two effects: the
    /// [plan](crate::fault::Plan) may have a fault for it. Returns whether the process has crashed:
    /// it must not go on then.
    ///
    /// ```
    /// # bus_sim::Sim::new(Default::default())?.run(|sim| async move {
    /// let reach = move |process: &str, point: &str| sim.reached(process, point);
    /// assert!(!reach("order-export", "after-send"));
    /// # });
    /// # Ok::<_, bus_core::Error>(())
    /// ```
    pub fn reached(&self, process: &str, point: &str) -> bool {
        self.shared.enter(|world| world.reached(process, point)).unwrap_or(false)
    }

    /// Says that a process commits at a database outside of the bus, by a name that faults have for
    /// it: the [plan](crate::fault::Plan) may refuse the commit, lose it or its answer, or make it
    /// late. Returns what whoever stands for the database has to do.
    ///
    /// ```
    /// use bus_sim::fault::{CommitFate, Plan};
    /// use bus_sim::{Sim, SimConfig};
    ///
    /// let plan: Plan = ron::from_str(r#"(faults: [(
    ///     id: 1,
    ///     when: Commit(process: "main", database: "shop", nth: 2),
    ///     fault: LoseCommitAnswer("main", "shop"),
    /// )])"#)?;
    /// let outcome = Sim::new(SimConfig { plan, ..SimConfig::default() })?.run(|sim| async move {
    ///     assert_eq!(sim.commits("main", "shop"), CommitFate::Ordinary);
    ///     // Here the database commits, and its client is told that the connection broke.
    ///     assert_eq!(sim.commits("main", "shop"), CommitFate::AnswerLost);
    ///     assert_eq!(sim.commits("main", "shop"), CommitFate::Ordinary);
    /// });
    /// assert!(outcome.report.faults[0].has_changed());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn commits(&self, process: &str, database: &str) -> CommitFate {
        // After the end of the simulation nothing strikes any more.
        let fate = self.shared.enter(|world| world.commits(process, database));
        fate.unwrap_or(CommitFate::Ordinary)
    }

    /// Asks for a size of the run, such as how many orders there are: the end of the range on an
    /// ordinary day. When a failure is [shrunk](crate::explore), it may be anything down to the
    /// start of the range; the replay file says what it was. The same in one run however often it
    /// is asked for.
    ///
    /// ```
    /// # bus_sim::Sim::new(Default::default())?.run(|sim| async move {
    /// let orders = sim.size("orders", 1..=20);
    /// assert_eq!(orders, 20);
    /// # });
    /// # Ok::<_, bus_core::Error>(())
    /// ```
    pub fn size(&self, name: &str, range: RangeInclusive<usize>) -> usize {
        self.shared.sizes.ask(name, range)
    }

    /// Cuts the link between a process (`main` for what is outside of every named one) and a
    /// broker: messages are held until [`heal`](Self::heal).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such process or broker.
    pub fn partition_link(&self, process: &str, broker: i32) -> Result<()> {
        self.enter(|world| {
            world.check_broker(broker)?;
            let process = Endpoint::Process(world.process_id(process)?);
            world.cut(process, Endpoint::Broker(broker));
            Ok(())
        })
    }

    /// Cuts the links between a broker and all other brokers and the controller; clients still
    /// reach it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such broker.
    pub fn isolate_broker(&self, broker: i32) -> Result<()> {
        self.enter(|world| {
            world.check_broker(broker)?;
            let brokers = world.config.brokers;
            world.cut(Endpoint::Broker(broker), Endpoint::Controller);
            for other in (1..=brokers).filter(|other| *other != broker) {
                world.cut(Endpoint::Broker(broker), Endpoint::Broker(other));
            }
            Ok(())
        })
    }

    /// Cuts the link between two brokers, in both directions.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such broker.
    pub fn partition_brokers(&self, a: i32, b: i32) -> Result<()> {
        self.cut_one_way(a, b)?;
        self.cut_one_way(b, a)
    }

    /// Cuts the link between two brokers in one direction: what `from` sends does not reach `to`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such broker.
    pub fn cut_one_way(&self, from: i32, to: i32) -> Result<()> {
        self.enter(|world| {
            world.check_broker(from)?;
            world.check_broker(to)?;
            world.cut_one_way(Endpoint::Broker(from), Endpoint::Broker(to));
            Ok(())
        })
    }

    /// Cuts the link between a broker and the controller: it is fenced when its session ends, and
    /// does not know.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there is no such broker.
    pub fn partition_from_controller(&self, broker: i32) -> Result<()> {
        self.enter(|world| {
            world.check_broker(broker)?;
            world.cut(Endpoint::Broker(broker), Endpoint::Controller);
            Ok(())
        })
    }

    /// Heals all links: what was held arrives.
    pub fn heal(&self) {
        // After the end of the simulation there is nothing to heal.
        let _over = self.shared.enter(World::heal);
    }

    /// Loses the next request of an API: it is never handled, and its connection is reset.
    pub fn lose_next_request(&self, api: Api) {
        self.add_rule(api, Direction::Request, Action::Lose);
    }

    /// Loses the next response of an API: its request was handled, and its connection is reset.
    pub fn lose_next_response(&self, api: Api) {
        self.add_rule(api, Direction::Response, Action::Lose);
    }

    /// Delays the next request of an API, and what is behind it on its connection. It arrives even
    /// if its client has given up and sent it again on another connection.
    pub fn delay_next_request(&self, api: Api, by: Duration) {
        self.add_rule(api, Direction::Request, Action::Delay(by));
    }

    /// Delays the next response of an API.
    pub fn delay_next_response(&self, api: Api, by: Duration) {
        self.add_rule(api, Direction::Response, Action::Delay(by));
    }

    fn add_rule(&self, api: Api, direction: Direction, action: Action) {
        let (from, to) = (Side::Anybody, Side::Anybody);
        let rule = Rule { api, direction, from, to, action, fault: None, is_once: true };
        // After the end of the simulation no message matches any more.
        let _over = self.shared.enter(|world| world.add_rule(rule));
    }

    fn enter<T>(&self, act: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
        self.shared.enter(act).unwrap_or_else(|| Err(over()))
    }

    /// Changes what a process does, if it `may` in its state, and tells its tasks.
    fn change(
        &self,
        process: &str,
        may: impl Fn(ProcessState) -> bool,
        act: fn(&mut World, ProcessId),
        state: ProcessState,
    ) -> Result<()> {
        let id = self.in_state(process, may)?;
        self.enter(|world| {
            act(world, id);
            Ok(())
        })?;
        self.tell(id, state);
        Ok(())
    }

    fn in_state(&self, name: &str, is_right: impl Fn(ProcessState) -> bool) -> Result<ProcessId> {
        self.enter(|world| {
            let id = world.process_id(name)?;
            let state = world.process(id).state;
            if id == MAIN {
                let message = "the main process cannot be stopped; use Bus::process";
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            if !is_right(state) {
                let message = format!("process {name:?} is {state:?}");
                return Err(Error::new(ErrorKind::InvalidState, message));
            }
            Ok(id)
        })
    }

    fn tell(&self, id: ProcessId, state: ProcessState) {
        if let Some(control) = self.shared.processes.control(id) {
            control.set(state);
        }
    }
}
