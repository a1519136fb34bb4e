//! The launcher against a real Kafka: three brokers through all that can be done to them.
//!
//! Needs a JDK and Maven, so it runs only where `BUS_TEST_REQUIRE_KAFKA=1` asks for it, as in CI.

use std::{collections::BTreeSet, path::Path};

use bus::kafka::{BrokerState, Cluster, Data, Error, Options};

/// Stops the cluster when the test ends, however it ends.
struct Guard<'a> {
    options: &'a Options,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Ok(cluster) = Cluster::open(self.options.dir.as_deref(), &self.options.name) {
            let _ = cluster.down();
        }
    }
}

#[test]
fn three_brokers_are_killed_frozen_stopped_and_come_back() -> Result<(), Error> {
    if std::env::var("BUS_TEST_REQUIRE_KAFKA").as_deref() != Ok("1") {
        println!("skipped: BUS_TEST_REQUIRE_KAFKA=1 runs it; it starts a real Kafka");
        return Ok(());
    }
    let options =
        Options { name: "test-of-the-launcher".into(), brokers: Some(3), ..Options::default() };
    let _guard = Guard { options: &options };
    let mut cluster = Cluster::up(&options)?;
    assert_eq!(states(&cluster), [BrokerState::Running; 3]);
    assert_eq!(cluster.bootstrap().split(',').count(), 3);

    cluster.kill(2)?;
    cluster.freeze(3)?;
    let after = [BrokerState::Running, BrokerState::Stopped, BrokerState::Frozen];
    assert_eq!(states(&cluster), after);
    assert!(matches!(cluster.kill(2), Err(Error::NotRunning { broker: 2 })));
    assert!(matches!(cluster.thaw(2), Err(Error::NotRunning { broker: 2 })));
    assert!(matches!(cluster.kill(4), Err(Error::NoBroker { broker: 4, .. })));

    cluster.thaw(3)?;
    cluster.start(2)?;
    assert_eq!(states(&cluster), [BrokerState::Running; 3]);

    // Up again finds it by its name, and starts what is missing.
    cluster.shutdown(1)?;
    assert_eq!(states(&cluster)[0], BrokerState::Stopped);
    let cluster = Cluster::up(&Options { brokers: None, ..options.clone() })?;
    assert_eq!(states(&cluster), [BrokerState::Running; 3]);
    let refused = Cluster::up(&Options { brokers: Some(1), ..options.clone() });
    assert!(matches!(refused, Err(Error::OtherSettings { .. })));

    let (url, folder) = (cluster.url(), cluster.folder());
    let pids: BTreeSet<u32> = cluster.status().iter().filter_map(|broker| broker.pid).collect();
    assert_eq!(pids.len(), 3);
    cluster.down_with(Data::Keep)?;
    for pid in pids {
        assert!(!is_broker(pid, &folder), "process {pid} still runs");
    }
    let cluster = Cluster::open(None, &options.name)?;
    assert_eq!(states(&cluster), [BrokerState::Stopped; 3]);
    assert_eq!(cluster.url(), url, "it would come back where its clients look for it");

    cluster.down()?;
    let gone = Cluster::open(None, &options.name);
    assert!(matches!(gone, Err(Error::NoCluster { .. })));
    Ok(())
}

fn states(cluster: &Cluster) -> Vec<BrokerState> {
    cluster.status().iter().map(|broker| broker.state).collect()
}

/// Says whether the process `pid` runs on files of the cluster in `folder`.
fn is_broker(pid: u32, folder: &Path) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&arguments).contains(&folder.display().to_string())
}
