//! Cluster: the life of a local Kafka: up, down, and what happens to one broker.
//!
//! Every change holds the cluster's lock and starts from what `cluster.json` says at that moment,
//! so that commands and tests can work on one cluster at the same time.

use std::{
    collections::BTreeMap,
    fmt, fs,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde::Serialize;

use super::{
    Error,
    distribution::Distribution,
    log,
    manifest::{self, Broker, Layout, Lock, Manifest},
    options::{Options, Step},
    ports, probe,
    process::{self, ProcessState},
    properties::server_properties,
};

/// How long a broker that was asked to stop may take before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the system may take to remove a killed process.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a probe waits for one answer; it is repeated.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// What a broker logs when the controller let it in and all its parts run.
const STARTED: &str = "Kafka Server started";

/// A local Kafka, known by its name. Dropping it stops nothing.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    manifest: Manifest,
    timeout: Duration,
}

/// What happens to the data of a cluster that is stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Data {
    /// It stays; the next `up` goes on with it, on the same ports.
    Keep,
    /// It is removed; the logs stay until the next `up`.
    Remove,
}

/// What a broker does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerState {
    /// It answers.
    Running,
    /// Its process runs and does not answer: it starts, or it found no quorum.
    Silent,
    /// Its process is frozen.
    Frozen,
    /// It has no process.
    Stopped,
}

/// A broker as [`Cluster::status`] found it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct BrokerStatus {
    /// Its number, from 1 on; also its `node.id`.
    pub broker: u16,
    /// What it does.
    pub state: BrokerState,
    /// Where clients connect.
    pub port: u16,
    /// Its process, if it has one.
    pub pid: Option<u32>,
}

impl Cluster {
    /// Brings a cluster up: makes it if there is none of that name, starts what does not run, and
    /// returns when all brokers answer.
    ///
    /// A new cluster that fails to start leaves no process behind. As all that changes a cluster,
    /// it blocks: in async code call it through `spawn_blocking`.
    pub fn up(options: &Options) -> Result<Self, Error> {
        Self::up_with(options, &mut |_| ())
    }

    /// Like [`up`](Self::up), and tells each step before it is taken.
    pub fn up_with(options: &Options, progress: &mut dyn FnMut(Step)) -> Result<Self, Error> {
        let layout = Layout::new(options.dir.as_deref(), &options.name)?;
        let _lock = layout.lock()?;
        let found = layout.read()?;
        let is_new = found.is_none();
        let manifest = match found {
            Some(manifest) => options.check(manifest)?,
            None => options.manifest()?,
        };
        let mut cluster = Self { layout, manifest, timeout: options.timeout };
        if cluster.status().iter().all(|b| b.state == BrokerState::Running) {
            progress(Step::AlreadyUp);
            return Ok(cluster);
        }

        let distribution = Distribution::find(&cluster.layout.base, || progress(Step::Download))?;
        if is_new {
            cluster.create(&distribution, progress)?;
        }
        let ids: Vec<u16> = cluster.manifest.brokers.iter().map(|b| b.id).collect();
        let result = cluster.run(&distribution, &ids, progress);
        if result.is_err() && is_new {
            // The first error says more than one about the cleaning up would.
            let _ = cluster.stop(Signal::SIGKILL);
            let _ = cluster.remove();
        }
        result.map(|()| cluster)
    }

    /// Finds a cluster that an earlier [`up`](Self::up) made, whether it runs or not.
    pub fn open(dir: Option<&Path>, name: &str) -> Result<Self, Error> {
        let layout = Layout::new(dir, name)?;
        let manifest = layout.read()?.ok_or_else(|| no_cluster(&layout))?;
        Ok(Self { layout, manifest, timeout: Options::default().timeout })
    }

    /// Returns the names of all clusters in a folder of clusters.
    pub fn names(dir: Option<&Path>) -> Result<Vec<String>, Error> {
        manifest::clusters(dir)
    }

    /// Returns the name of the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// Returns the folder with the cluster's data and logs.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.layout.folder()
    }

    /// Returns `bootstrap.servers`: the addresses of all brokers.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let addresses = self.manifest.brokers.iter().map(|b| format!("127.0.0.1:{}", b.port));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// Returns the URL by which the bus reaches the cluster.
    #[must_use]
    pub fn url(&self) -> String {
        format!("kafka://{}", self.bootstrap())
    }

    /// Looks at all brokers.
    #[must_use]
    pub fn status(&self) -> Vec<BrokerStatus> {
        // Another command may have started a broker since; what it wrote is read anew.
        let read = self.layout.read().ok().flatten();
        let manifest = read.as_ref().unwrap_or(&self.manifest);
        manifest.brokers.iter().map(|broker| self.look(broker)).collect()
    }

    /// Starts a broker that does not run, and returns when it answers and all others that do know
    /// it; thaws it if it is frozen.
    pub fn start(&mut self, broker: u16) -> Result<(), Error> {
        let _lock = self.lock(broker)?;
        let distribution = Distribution::find(&self.layout.base, || ())?;
        self.run(&distribution, &[broker], &mut |_| ())
    }

    /// Kills a broker's process at once, as a loss of power would.
    pub fn kill(&mut self, broker: u16) -> Result<(), Error> {
        let _lock = self.lock(broker)?;
        let pid = self.signal(broker, Signal::SIGKILL)?;
        let mark = self.layout.properties(broker);
        if process::wait_end(pid, &mark, Instant::now() + KILL_TIMEOUT) {
            Ok(())
        } else {
            Err(Error::NotEnded { broker, pid })
        }
    }

    /// Asks a broker to stop, and returns when it has: it hands its partitions over first, unless
    /// that takes longer than 10 s.
    pub fn shutdown(&mut self, broker: u16) -> Result<(), Error> {
        let _lock = self.lock(broker)?;
        let pid = self.signal(broker, Signal::SIGTERM)?;
        // A frozen process does not see the other signal.
        self.signal(broker, Signal::SIGCONT)?;
        self.end(broker, pid, Instant::now() + STOP_TIMEOUT)
    }

    /// Freezes a broker's process: it keeps its connections and answers nothing, as in a long
    /// pause of its garbage collector.
    pub fn freeze(&mut self, broker: u16) -> Result<(), Error> {
        let _lock = self.lock(broker)?;
        self.signal(broker, Signal::SIGSTOP).map(|_| ())
    }

    /// Lets a frozen broker go on.
    pub fn thaw(&mut self, broker: u16) -> Result<(), Error> {
        let _lock = self.lock(broker)?;
        self.signal(broker, Signal::SIGCONT).map(|_| ())
    }

    /// Stops all brokers and removes their data.
    pub fn down(self) -> Result<(), Error> {
        self.down_with(Data::Remove)
    }

    /// Stops all brokers, first by asking and then by killing, and returns when all have ended.
    pub fn down_with(mut self, data: Data) -> Result<(), Error> {
        let _lock = self.layout.lock()?;
        self.reload()?;
        self.stop(Signal::SIGTERM)?;
        match data {
            Data::Keep => self.layout.write(&self.manifest),
            Data::Remove => self.remove(),
        }
    }

    /// Takes the right to change the cluster, and looks for the broker that shall be changed.
    fn lock(&mut self, broker: u16) -> Result<Lock, Error> {
        let lock = self.layout.lock()?;
        self.reload()?;
        self.broker(broker)?;
        Ok(lock)
    }

    fn reload(&mut self) -> Result<(), Error> {
        self.manifest = self.layout.read()?.ok_or_else(|| no_cluster(&self.layout))?;
        Ok(())
    }

    fn broker(&self, id: u16) -> Result<&Broker, Error> {
        let brokers = &self.manifest.brokers;
        brokers.iter().find(|b| b.id == id).ok_or_else(|| Error::NoBroker {
            name: self.manifest.name.clone(),
            broker: id,
            brokers: brokers.len(),
        })
    }

    fn look(&self, broker: &Broker) -> BrokerStatus {
        let state = match self.process(broker) {
            ProcessState::Ended => BrokerState::Stopped,
            ProcessState::Frozen => BrokerState::Frozen,
            ProcessState::Running if self.knows(broker, &[broker.id]) => BrokerState::Running,
            ProcessState::Running => BrokerState::Silent,
        };
        let pid = broker.pid.filter(|_| state != BrokerState::Stopped);
        BrokerStatus { broker: broker.id, state, port: broker.port, pid }
    }

    fn process(&self, broker: &Broker) -> ProcessState {
        broker.pid.map_or(ProcessState::Ended, |pid| {
            process::state(pid, &self.layout.properties(broker.id))
        })
    }

    /// Asks `broker` whether it knows all of `ids` to be alive.
    fn knows(&self, broker: &Broker, ids: &[u16]) -> bool {
        probe::live_brokers(broker.port, PROBE_TIMEOUT)
            .is_ok_and(|live| ids.iter().all(|id| live.contains(&i32::from(*id))))
    }

    /// Sends a signal to a broker that runs; returns its process.
    fn signal(&self, broker: u16, signal: Signal) -> Result<u32, Error> {
        let pid = self.broker(broker)?.pid.ok_or(Error::NotRunning { broker })?;
        match process::send(pid, &self.layout.properties(broker), signal) {
            Ok(true) => Ok(pid),
            Ok(false) => Err(Error::NotRunning { broker }),
            Err(error) => Err(Error::io(format!("signaling process {pid}"))(error)),
        }
    }

    /// Writes the files of a new cluster and lets Kafka format the data folders.
    fn create(
        &self,
        distribution: &Distribution,
        progress: &mut dyn FnMut(Step),
    ) -> Result<(), Error> {
        progress(Step::Format);
        let folder = self.layout.folder();
        let doing = || Error::io(format!("writing {}", folder.display()));
        if folder.exists() {
            // Logs of an earlier cluster of this name.
            fs::remove_dir_all(&folder).map_err(doing())?;
        }
        for (index, broker) in self.manifest.brokers.iter().enumerate() {
            let text = server_properties(&self.manifest, index, &self.layout.data(broker.id));
            fs::create_dir_all(self.layout.broker(broker.id))
                .and_then(|()| fs::write(self.layout.properties(broker.id), text))
                .map_err(doing())?;
        }
        thread::scope(|scope| {
            let brokers = self.manifest.brokers.iter();
            let formats: Vec<_> =
                brokers.map(|b| scope.spawn(|| self.format(distribution, b.id))).collect();
            formats.into_iter().try_for_each(|format| match format.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        self.layout.write(&self.manifest)
    }

    fn format(&self, distribution: &Distribution, broker: u16) -> Result<(), Error> {
        let output = distribution
            .java(&[], "kafka.tools.StorageTool")
            .args(["format", "-t", &self.manifest.cluster_id, "-c"])
            .arg(self.layout.properties(broker))
            .output()
            .map_err(Error::io("running Kafka's StorageTool"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        let excerpt = log::why_ended(&String::from_utf8_lossy(&text));
        Err(Error::Format { broker, excerpt })
    }

    /// Makes the brokers `ids` run, and waits until they answer and all that run know them.
    fn run(
        &mut self,
        distribution: &Distribution,
        ids: &[u16],
        progress: &mut dyn FnMut(Step),
    ) -> Result<(), Error> {
        let mut starts = BTreeMap::new();
        for index in 0..self.manifest.brokers.len() {
            let broker = &self.manifest.brokers[index];
            let id = broker.id;
            if !ids.contains(&id) {
                continue;
            }
            match self.process(broker) {
                ProcessState::Running => {}
                ProcessState::Frozen => {
                    self.signal(id, Signal::SIGCONT)?;
                }
                ProcessState::Ended => {
                    progress(Step::Start { broker: id });
                    starts.insert(id, log::length(&self.layout.log(id)));
                    let pid = self.spawn(distribution, index)?;
                    self.manifest.brokers[index].pid = Some(pid);
                    // At once, so that no later failure leaves a process that nobody knows.
                    self.layout.write(&self.manifest)?;
                }
            }
        }
        progress(Step::Wait);
        self.wait(ids, &starts)
    }

    fn spawn(&self, distribution: &Distribution, index: usize) -> Result<u32, Error> {
        let Broker { id, port, controller_port, .. } = self.manifest.brokers[index];
        if let Some(port) = [port, controller_port].into_iter().find(|p| !ports::is_soon_free(*p)) {
            return Err(Error::PortTaken { port });
        }
        let path = self.layout.log(id);
        let doing = || Error::io(format!("writing {}", path.display()));
        let output = File::options().create(true).append(true).open(&path).map_err(doing())?;
        let errors = output.try_clone().map_err(doing())?;
        let mut child = distribution
            .java(&["-Xmx400m", "-XX:+ExitOnOutOfMemoryError"], "kafka.Kafka")
            .arg(self.layout.properties(id))
            .current_dir(self.layout.broker(id))
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(errors))
            // In a group of its own: a Ctrl-C at the terminal ends the command, not the broker.
            .process_group(0)
            .spawn()
            .map_err(Error::io("running java"))?;
        let pid = child.id();
        // A process that ended stays in the table until its parent looked. The parent may be a
        // test that lives long after it killed the broker.
        thread::spawn(move || child.wait());
        Ok(pid)
    }

    /// Waits until the brokers `ids` run and every broker that runs knows them; `starts` says where
    /// in their logs those begin that were started just now.
    fn wait(&self, ids: &[u16], starts: &BTreeMap<u16, u64>) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeout;
        for broker in &self.manifest.brokers {
            let id = broker.id;
            let path = self.layout.log(id);
            loop {
                match self.process(broker) {
                    ProcessState::Running => {}
                    ProcessState::Ended if ids.contains(&id) => {
                        let from = starts.get(&id).copied().unwrap_or_default();
                        let text = log::read_from(&path, from).unwrap_or_default();
                        let excerpt = log::why_ended(&text);
                        return Err(Error::BrokerEnded { broker: id, excerpt, log: path });
                    }
                    // Others may be down, or frozen; nobody waits for them.
                    ProcessState::Ended | ProcessState::Frozen => break,
                }
                let has_started = starts.get(&id).is_none_or(|from| {
                    log::read_from(&path, *from).is_ok_and(|text| text.contains(STARTED))
                });
                if has_started && self.knows(broker, ids) {
                    break;
                }
                if Instant::now() >= deadline {
                    return Err(Error::NotReady { broker: id, timeout: self.timeout, log: path });
                }
                thread::sleep(PROBE_INTERVAL);
            }
        }
        Ok(())
    }

    /// Ends all processes, by `signal` first; forgets them.
    fn stop(&mut self, signal: Signal) -> Result<(), Error> {
        let mut running = Vec::new();
        for broker in &self.manifest.brokers {
            if self.process(broker) != ProcessState::Ended {
                // A frozen process does not see the other signal.
                self.signal(broker.id, signal)?;
                let _ = self.signal(broker.id, Signal::SIGCONT);
                running.extend(broker.pid.map(|pid| (broker.id, pid)));
            }
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        for (broker, pid) in running {
            self.end(broker, pid, deadline)?;
        }
        for broker in &mut self.manifest.brokers {
            broker.pid = None;
        }
        Ok(())
    }

    /// Waits until a process that was asked to stop has ended; kills it when the time is up.
    fn end(&self, broker: u16, pid: u32, deadline: Instant) -> Result<(), Error> {
        let mark = self.layout.properties(broker);
        if process::wait_end(pid, &mark, deadline) {
            return Ok(());
        }
        process::send(pid, &mark, Signal::SIGKILL)
            .map_err(Error::io(format!("killing process {pid}")))?;
        if process::wait_end(pid, &mark, Instant::now() + KILL_TIMEOUT) {
            Ok(())
        } else {
            Err(Error::NotEnded { broker, pid })
        }
    }

    /// Removes data and description; the logs stay for those who want to know what happened.
    fn remove(&self) -> Result<(), Error> {
        for broker in &self.manifest.brokers {
            let data = self.layout.data(broker.id);
            if data.exists() {
                fs::remove_dir_all(&data)
                    .map_err(Error::io(format!("removing {}", data.display())))?;
            }
        }
        let path = self.layout.manifest();
        if path.exists() {
            fs::remove_file(&path).map_err(Error::io(format!("removing {}", path.display())))?;
        }
        Ok(())
    }
}

impl fmt::Display for BrokerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Silent => "silent",
            Self::Frozen => "frozen",
            Self::Stopped => "stopped",
        })
    }
}

fn no_cluster(layout: &Layout) -> Error {
    Error::NoCluster { name: layout.name.clone(), folder: layout.base.clone() }
}
