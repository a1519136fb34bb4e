//! From a URL to a bus: what `bus::run` and `bus::connect` accept, and how they refuse.

use std::time::Duration;

use bus::{ErrorKind, NewTopic, Operation, ProducerConfig, ProducerRecord};

#[test]
fn run_on_the_simulator_reports_seed_times_and_trace() {
    let run = bus::run("sim://?seed=5", |bus| async move {
        bus.admin()?.create_topic(NewTopic::new("a")).await?;
        let producer = bus.producer(ProducerConfig::default())?;
        let sent = producer.send(ProducerRecord::to("a").value("1")).await?;
        tokio::time::sleep(Duration::from_hours(1)).await;
        Ok::<_, bus::Error>(sent)
    })
    .unwrap();
    assert_eq!(run.output.unwrap().offset, Some(0));
    assert_eq!((run.report.bus.as_str(), run.report.seed), ("sim://?seed=5", Some(5)));
    assert!(run.report.virtual_time >= Duration::from_hours(1), "{:?}", run.report);
    assert!(run.report.wall_time < Duration::from_mins(1), "{:?}", run.report);
    assert_eq!(run.report.trace_hash.map(|hash| hash.len()), Some(16));
}

#[test]
fn an_application_that_waits_for_nothing_stalls() {
    let wait = |_| std::future::pending::<()>();
    let error = bus::run("sim://?time.limit.s=10", wait).unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Stalled, Some(Operation::Run)));
    assert!(error.to_string().contains("waiting"), "{error}");
    let run = bus::try_run("sim://?seed=3&time.limit.s=10", wait).unwrap();
    assert_eq!(run.output.unwrap_err().kind(), ErrorKind::Stalled);
    assert_eq!(run.report.seed, Some(3));
    assert!(run.report.trace_hash.is_some());
}

#[test]
fn urls_that_cannot_run_say_what_would() {
    for (url, kind, part) in [
        ("localhost:9092", ErrorKind::InvalidConfig, "no scheme"),
        ("nats://localhost", ErrorKind::InvalidConfig, "sim:// (for example sim://?seed=42)"),
        ("mem://", ErrorKind::Unsupported, "sim://"),
        ("sim://?seed=-1", ErrorKind::InvalidConfig, "seed"),
        ("sim://?brokers=10", ErrorKind::InvalidConfig, "brokers=10"),
        ("sim://?linger.mss=1", ErrorKind::InvalidConfig, "linger.ms"),
        ("kafka://", ErrorKind::InvalidConfig, "kafka://"),
    ] {
        let error = bus::run(url, |_| async {}).unwrap_err();
        assert_eq!(error.kind(), kind, "{url}: {error}");
        assert!(error.to_string().contains(part), "{url}: {error}");
    }
}

#[tokio::test]
async fn run_refuses_to_block_a_runtime() {
    let error = bus::run("sim://", |_| async {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    assert!(error.to_string().contains("bus::connect"), "{error}");
}

#[tokio::test]
async fn connect_refuses_what_has_no_place_in_the_callers_runtime() {
    for (url, kind, part) in [
        ("sim://?seed=1", ErrorKind::InvalidConfig, "use bus::run"),
        ("mem://", ErrorKind::Unsupported, "sim://"),
        ("amqp://localhost", ErrorKind::InvalidConfig, "unknown scheme \"amqp\""),
        ("kafka://a:0", ErrorKind::InvalidConfig, "malformed port"),
    ] {
        let error = bus::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{url}: {error}");
        assert!(error.to_string().contains(part), "{url}: {error}");
    }
}

#[tokio::test]
async fn connect_gives_up_on_a_broker_that_does_not_answer() {
    // Port 1 of this machine is closed.
    let error = bus::connect("kafka://127.0.0.1:1?connect.timeout.ms=300").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AllBrokersDown, "{error}");
}
