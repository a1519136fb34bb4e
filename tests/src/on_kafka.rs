//! The fixture of a real Kafka: a bus per case, and processes of the operating system.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bus::kafka::{BrokerState, Cluster, Options};
use bus_core::{BoxFuture, Bus, BusUrl, ErrorKind, Result, Topic};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::case::Case;
use crate::column::Column;
use crate::cx::Cx;
use crate::failure::{Failure, FailureKind, Verdict};
use crate::fixture::{Fault, Fixture, Need};
use crate::runner;
use crate::script::{Script, play};

/// In real time; everything that a case waits for has a deadline below it.
const CASE_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a broker may take until its replicas are in sync again.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The topics in which the coordinators keep their state.
const INTERNAL_TOPICS: [&str; 2] = ["__consumer_offsets", "__transaction_state"];

/// Names the script of a child process.
const CHILD: &str = "BUS_TEST_CHILD";

/// A Kafka to run cases on.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// How many brokers it is to have.
    pub brokers: i32,
    /// Its addresses.
    pub hosts: String,
    /// The cluster, if the suite may stop its brokers.
    pub owned: Option<Arc<Owned>>,
}

/// A cluster of `bus kafka up` whose brokers the suite may stop.
#[derive(Debug)]
pub struct Owned {
    options: Options,
    cluster: Mutex<Cluster>,
}

impl Owned {
    fn open(name: String) -> Result<Self, String> {
        let dir = std::env::var_os("BUS_TEST_KAFKA_DIR").map(PathBuf::from);
        let cluster = Cluster::open(dir.as_deref(), &name).map_err(|error| error.to_string())?;
        let options = Options { dir, name, ..Options::default() };
        Ok(Self { options, cluster: Mutex::new(cluster) })
    }

    /// Starts whatever does not run, all at once: one alone would wait for the others.
    fn heal(&self) -> Result<(), String> {
        *self.cluster.lock() = Cluster::up(&self.options).map_err(|error| error.to_string())?;
        Ok(())
    }
}

impl Kafka {
    /// The Kafka that the environment names for a column, if it does: `BUS_TEST_KAFKA` for one
    /// broker, `BUS_TEST_KAFKA3` for three. With `_NAME` behind it, the name of the cluster that
    /// `bus kafka up` has made in its usual folder, or in `BUS_TEST_KAFKA_DIR`: then cases may stop
    /// its brokers.
    ///
    /// # Errors
    /// If there is no such cluster.
    pub fn named(column: &Column) -> Result<Option<Self>, String> {
        let variable = Self::variable(column);
        let Ok(hosts) = std::env::var(variable) else { return Ok(None) };
        let name = std::env::var(format!("{variable}_NAME")).ok();
        let owned = name.map(Owned::open).transpose()?.map(Arc::new);
        Ok(Some(Self { brokers: column.brokers, hosts, owned }))
    }

    /// The variable that names the Kafka of a column.
    pub const fn variable(column: &Column) -> &'static str {
        if column.brokers == 1 { "BUS_TEST_KAFKA" } else { "BUS_TEST_KAFKA3" }
    }

    /// Why a case that needs this is skipped; `None` if it can be run.
    pub const fn lacks(&self, need: Need) -> Option<&'static str> {
        match need {
            Need::Processes => None,
            Need::VirtualTime => Some("an hour of idling takes an hour"),
            Need::Brokers if self.owned.is_some() => None,
            Need::Brokers => Some("the brokers are shared and run outside of the suite"),
            Need::Replicas if self.brokers >= 3 => None,
            Need::Replicas => Some("one broker has no replicas"),
            Need::Links => Some("the network of a real machine is not cut"),
            Need::Losses => Some("a single message of a real connection cannot be lost"),
        }
    }

    /// Whether a case disturbs others, so that it must run alone.
    pub fn is_disturbed_by(&self, case: &Case) -> bool {
        case.needs.contains(&Need::Brokers)
    }

    /// Runs a case, inside a tokio runtime; `unique` is a part of all names.
    ///
    /// # Errors
    /// Why the case does not hold.
    pub async fn run(&self, case: &Case, unique: String) -> Verdict {
        let bus = connect(&self.url()).await?;
        let fixture = OnKafka { kafka: self.clone(), bus, children: Mutex::default() };
        let cx = Cx::new(Arc::new(fixture), unique)?;
        let verdict = tokio::time::timeout(CASE_TIMEOUT, runner::run(case, &cx)).await;
        let verdict = verdict.unwrap_or_else(|_| {
            let message = format!("not over within {CASE_TIMEOUT:?}\n{}", cx.history().excerpt(60));
            Err(Failure::new(FailureKind::Stalled, message))
        });
        let healed = if self.is_disturbed_by(case) { settle(&cx).await } else { Ok(()) };
        remove_topics(&cx).await;
        verdict.and(healed)
    }

    fn url(&self) -> String {
        format!("kafka://{}", self.hosts)
    }
}

/// Brings all brokers back, and waits until the replicas that coordinators need are in sync.
async fn settle(cx: &Cx) -> Verdict {
    cx.inflict(&Fault::Heal)?;
    let admin = cx.raw_bus().admin()?;
    let are_in_sync = async || -> Result<bool> {
        for topic in INTERNAL_TOPICS {
            let described = match admin.describe_topic(topic.into()).await {
                Err(error) if error.kind() == ErrorKind::UnknownTopicOrPartition => continue,
                described => described?,
            };
            if described.partitions.iter().any(|p| p.in_sync_replicas.len() < p.replicas.len()) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let settled = async {
        while !are_in_sync().await.unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SETTLE_TIMEOUT, settled).await.map_err(|_| {
        let message = format!("the replicas are not in sync again within {SETTLE_TIMEOUT:?}");
        Failure::new(FailureKind::Deadline, message)
    })
}

async fn connect(url: &str) -> Result<Bus> {
    let url: BusUrl = url.parse()?;
    bus_kafka::connect(&url).await
}

/// Brokers are slower with thousands of topics.
async fn remove_topics(cx: &Cx) {
    let Ok(admin) = cx.raw_bus().admin() else { return };
    let deletions = cx.topics().into_iter().map(|topic: Topic| admin.delete_topic(topic));
    // A topic that is left behind is only untidy.
    drop(futures_util::future::join_all(deletions).await);
}

struct OnKafka {
    kafka: Kafka,
    bus: Bus,
    children: Mutex<BTreeMap<String, (Child, Script)>>,
}

/// What a child process is told by its environment.
#[derive(Serialize, Deserialize)]
struct ChildTask {
    url: String,
    script: Script,
}

/// Plays the script of a child process, if this is one; to be called first in `main`.
pub fn play_if_child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    // The parent holds the other end of the pipe: if it is gone, so is its child.
    std::thread::spawn(|| {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
    let done = serde_json::from_str::<ChildTask>(&task).ok().zip(runtime().ok());
    if let Some((ChildTask { url, script }, runtime)) = done {
        runtime.block_on(async move {
            if let Ok(bus) = connect(&url).await {
                play(bus, script).await;
            }
        });
    }
    std::process::exit(0);
}

/// The runtime for cases on a real Kafka.
///
/// # Errors
/// If the system has no threads left.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

impl Fixture for OnKafka {
    fn bus(&self) -> Bus {
        self.bus.clone()
    }

    fn another_bus(&self) -> BoxFuture<'_, Result<Bus>> {
        async { connect(&self.kafka.url()).await }.boxed()
    }

    fn url(&self) -> String {
        self.kafka.url()
    }

    fn brokers(&self) -> i32 {
        self.kafka.brokers
    }

    fn unreachable(&self, timeout: Duration) -> BoxFuture<'_, Result<Bus>> {
        async move {
            // Port 1 is reserved, and nobody listens there.
            let url = format!("kafka://127.0.0.1:1?connect.timeout.ms={}", timeout.as_millis());
            connect(&url).await
        }
        .boxed()
    }

    fn is_broker_up(&self, broker: i32) -> bool {
        // Who does not own the cluster stops nothing.
        self.owned().map_or(true, |owned| {
            let status = owned.cluster.lock().status();
            let found = status.iter().find(|found| i32::from(found.broker) == broker);
            found.is_some_and(|found| found.state != BrokerState::Stopped)
        })
    }

    fn is_virtual_time(&self) -> bool {
        false
    }

    fn start(&self, process: &str, script: Script) -> Result<(), String> {
        let child = self.spawn(&script)?;
        self.children.lock().insert(process.to_owned(), (child, script));
        Ok(())
    }

    fn inflict(&self, fault: &Fault) -> Result<(), String> {
        match fault {
            Fault::Crash(process) => self.kill(process),
            Fault::Pause(process) => self.signal(process, "-STOP"),
            Fault::Resume(process) => self.signal(process, "-CONT"),
            Fault::Restart(process) => {
                let script = self.children.lock().get(process).map(|(_, script)| script.clone());
                self.start(process, script.ok_or("there is no such process")?)
            }
            Fault::CrashBrokers => self.each_broker(Cluster::kill),
            Fault::RestartBrokers => self.owned()?.heal(),
            Fault::CrashBroker(id) => self.broker(*id, Cluster::kill),
            Fault::ShutdownBroker(id) => self.broker(*id, Cluster::shutdown),
            Fault::RestartBroker(id) => self.broker(*id, Cluster::start),
            Fault::StallFollowers(leader) => self.each_other_broker(*leader, Cluster::freeze),
            Fault::ResumeFollowers(leader) => self.each_other_broker(*leader, Cluster::thaw),
            Fault::Heal if self.kafka.owned.is_some() => self.owned()?.heal(),
            Fault::Heal => Ok(()),
            Fault::Cut(_) | Fault::LoseRequest(_) | Fault::LoseResponse(_) => {
                Err(format!("{fault} cannot be done on a real Kafka"))
            }
        }
    }
}

/// What is done to one broker of a cluster.
type Deed = fn(&mut Cluster, u16) -> Result<(), bus::kafka::Error>;

impl OnKafka {
    /// Does something to one broker, and waits until it is done.
    fn broker(&self, id: i32, deed: Deed) -> Result<(), String> {
        let id = u16::try_from(id).map_err(|error| error.to_string())?;
        deed(&mut self.owned()?.cluster.lock(), id).map_err(|error| error.to_string())
    }

    fn owned(&self) -> Result<&Owned, String> {
        self.kafka.owned.as_deref().ok_or_else(|| "the brokers belong to others".to_owned())
    }

    fn each_other_broker(&self, broker: i32, deed: Deed) -> Result<(), String> {
        let others = (1..=self.kafka.brokers).filter(|other| *other != broker);
        others.into_iter().try_for_each(|other| self.broker(other, deed))
    }

    fn each_broker(&self, deed: Deed) -> Result<(), String> {
        (1..=self.kafka.brokers).try_for_each(|id| self.broker(id, deed))
    }

    fn spawn(&self, script: &Script) -> Result<Child, String> {
        let task = ChildTask { url: self.kafka.url(), script: script.clone() };
        let task = serde_json::to_string(&task).map_err(|error| error.to_string())?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        Command::new(program)
            .env(CHILD, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())
    }

    fn kill(&self, process: &str) -> Result<(), String> {
        let mut children = self.children.lock();
        let (child, _) = children.get_mut(process).ok_or("there is no such process")?;
        child.kill().and_then(|()| child.wait()).map(drop).map_err(|error| error.to_string())
    }

    fn signal(&self, process: &str, signal: &str) -> Result<(), String> {
        let id = self.children.lock().get(process).map(|(child, _)| child.id());
        let id = id.ok_or("there is no such process")?.to_string();
        let status = Command::new("kill").args([signal, &id]).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("kill {signal} {id}: {status}")),
            Err(error) => Err(format!("kill {signal} {id}: {error}")),
        }
    }
}

impl Drop for OnKafka {
    fn drop(&mut self) {
        for (child, _) in self.children.get_mut().values_mut() {
            // One that has ended already is what is wanted.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
