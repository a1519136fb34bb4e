//! The fixture of a real Kafka: a bus per case, and processes of the operating system.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bus_core::{BoxFuture, Bus, BusUrl, Result, Topic};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::case::Case;
use crate::cx::Cx;
use crate::failure::{Failure, FailureKind, Verdict};
use crate::fixture::{Fault, Fixture, Need};
use crate::runner;
use crate::script::{Script, play};

/// In real time; everything that a case waits for has a deadline below it.
const CASE_TIMEOUT: Duration = Duration::from_secs(90);

/// Names the script of a child process.
const CHILD: &str = "BUS_TEST_CHILD";

/// Why a case that needs this is skipped on a real Kafka; `None` if it can be run.
pub const fn lacks(need: Need) -> Option<&'static str> {
    match need {
        Need::Processes => None,
        Need::VirtualTime => Some("an hour of idling takes an hour"),
        Need::Brokers => Some("the brokers are shared and run outside of the suite"),
        Need::Links => Some("the network of a real machine is not cut"),
        Need::Losses => Some("a single message of a real connection cannot be lost"),
    }
}

/// Runs a case on the Kafka of this URL, inside a tokio runtime; `unique` is a part of all names.
///
/// # Errors
/// Why the case does not hold.
pub async fn run(case: &Case, url: &str, unique: String) -> Verdict {
    let bus = connect(url).await?;
    let fixture = Arc::new(OnKafka { url: url.to_owned(), bus, children: Mutex::default() });
    let cx = Cx::new(fixture, unique)?;
    let verdict = tokio::time::timeout(CASE_TIMEOUT, runner::run(case, &cx)).await;
    remove_topics(&cx).await;
    verdict.unwrap_or_else(|_| {
        let message = format!("not over within {CASE_TIMEOUT:?}\n{}", cx.history().excerpt(60));
        Err(Failure::new(FailureKind::Stalled, message))
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
    url: String,
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
        connect(&self.url).boxed()
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    fn unreachable(&self, timeout: Duration) -> BoxFuture<'_, Result<Bus>> {
        async move {
            // Port 1 is reserved, and nobody listens there.
            let url = format!("kafka://127.0.0.1:1?connect.timeout.ms={}", timeout.as_millis());
            connect(&url).await
        }
        .boxed()
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
            Fault::Heal => Ok(()),
            Fault::CrashBrokers
            | Fault::RestartBrokers
            | Fault::Cut(_)
            | Fault::LoseRequest(_)
            | Fault::LoseResponse(_) => Err(format!("{fault} cannot be done on a real Kafka")),
        }
    }
}

impl OnKafka {
    fn spawn(&self, script: &Script) -> Result<Child, String> {
        let task = ChildTask { url: self.url.clone(), script: script.clone() };
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
