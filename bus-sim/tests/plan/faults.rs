//! Faults: each does what it says until it ends, and everything can be healed.

use std::time::Duration;

use bus_core::Result;
use bus_sim::{Outcome, SimHandle};

use crate::{consume, count, create, fault, report, run, send, send_five};

/// Sends a record every half second for ten seconds, with a member that reads.
async fn work(sim: SimHandle) -> Result<()> {
    let bus = sim.bus();
    create(&bus).await?;
    bus.process("member", |bus| async move { drop(consume(bus).await) });
    for _ in 0..20 {
        send(&bus, 1).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

#[test]
fn a_frozen_broker_is_fenced_and_goes_on() {
    let report = report(run(
        r#"(
            id: 1,
            when: At("2s"),
            fault: FreezeBroker(Leader("orders", 0)),
            until: Some(For("20s")),
        )"#,
        |sim| async move {
            let bus = sim.bus();
            create(&bus).await?;
            send(&bus, 5).await?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            send(&bus, 5).await?;
            tokio::time::sleep(Duration::from_secs(60)).await;
            send(&bus, 5).await
        },
    ));
    assert!(fault(&report, 1).has_changed());
    assert!(count(&report, "thaws") == 1);
    assert!(count(&report, "leader orders-0 broker-") >= 2, "another took over");
    let last = report.trace.iter().rfind(|line| line.contains("in sync orders-0")).unwrap();
    assert_eq!(last.matches(", ").count(), 2, "all three are in sync again: {last}");
}

#[test]
fn links_are_cut_and_heal_one_by_one() {
    let report = report(run(
        r#"
        (
            id: 1,
            when: At("2s"),
            fault: CutProcess("main", Leader("orders", 0)),
            until: Some(For("3s")),
        ),
        (id: 2, when: At("2s"), fault: IsolateBroker(Broker(3)), until: Some(For("1s"))),
        "#,
        work,
    ));
    assert!(fault(&report, 1).has_changed(), "a record was held back");
    assert!(fault(&report, 2).has_changed(), "a heartbeat was held back");
    assert_eq!(fault(&report, 1).ended.unwrap().elapsed(), Duration::from_secs(5));
    assert_eq!(fault(&report, 2).ended.unwrap().elapsed(), Duration::from_secs(3));
}

#[test]
fn a_link_stays_cut_while_another_fault_cuts_it() {
    let report = report(run(
        r#"
        (id: 1, when: At("2s"), fault: CutFromController(Broker(1)), until: Some(For("1s"))),
        (id: 2, when: At("2500ms"), fault: IsolateBroker(Broker(1)), until: Some(For("9s"))),
        "#,
        work,
    ));
    // Its session of 4 s ran out although the first cut ended soon.
    assert!(fault(&report, 2).has_changed());
    assert!(count(&report, "in sync orders-0 [2, 3]") + count(&report, "[3, 2]") > 0);
}

#[test]
fn a_process_is_crashed_and_paused_by_a_plan() {
    let report = report(run(
        r#"
        (
            id: 1,
            when: Fact(is: OffsetCommitted("g"), nth: 2),
            fault: CrashProcess("member"),
            until: Some(For("1s")),
        ),
        (id: 2, when: At("6s"), fault: PauseProcess("member"), until: Some(For("3s"))),
        "#,
        work,
    ));
    for id in [1, 2] {
        let fault = fault(&report, id);
        assert!(fault.has_changed() && fault.ended.is_some(), "{fault:?}");
    }
    assert_eq!(count(&report, "process member crashes"), 1);
    assert_eq!(count(&report, "process member restarts"), 1);
    assert_eq!(count(&report, "session expired"), 2, "of the crashed and of the paused one");
}

#[test]
fn a_process_is_stalled_by_a_plan() {
    let report = report(run(
        r#"(id: 1, when: At("6s"), fault: StallProcess("member"), until: Some(For("3s")))"#,
        work,
    ));
    let fault = fault(&report, 1);
    assert!(fault.has_changed() && fault.ended.is_some(), "{fault:?}");
    assert_eq!(count(&report, "process member stalls"), 1);
    assert_eq!(count(&report, "process member resumes"), 1);
    assert_eq!(count(&report, "session expired"), 0, "its heartbeats went on");
}

#[test]
fn rules_last_until_they_end() {
    let report = report(run(
        r#"(
            id: 1,
            when: Request(api: Produce, is: Sent, nth: 2),
            fault: LoseRequest((api: Produce, from: Some(AnyProcess))),
            until: Some(For("2s")),
        )"#,
        send_five,
    ));
    assert!(count(&report, "network x ") >= 3, "each of them is lost");
    assert_eq!(count(&report, "! appended orders-0@"), 5);
}

#[test]
fn connections_are_reset() {
    let report = report(run(
        r#"(
            id: 1,
            when: Request(api: Produce, is: Handled, nth: 2),
            fault: ResetConnections("main", Leader("orders", 0)),
        )"#,
        send_five,
    ));
    assert!(fault(&report, 1).has_changed());
    assert_eq!(count(&report, "duplicate of orders-0@1"), 1);
}

#[test]
fn a_broker_that_shuts_down_starts_again() {
    let report = report(run(
        r#"(
            id: 1,
            when: At("2s"),
            fault: ShutDownBroker(Leader("orders", 0)),
            until: Some(For("3s")),
        )"#,
        work,
    ));
    let told = |what: &str| count(&report, &format!("broker-{what}"));
    assert!(fault(&report, 1).has_changed());
    assert_eq!(count(&report, " shuts down"), 1);
    assert_eq!(count(&report, " stops"), 1);
    assert!(told("1 starts") + told("2 starts") + told("3 starts") == 1);
}

#[test]
fn everything_heals_at_the_end_of_the_faults() {
    let outcome: Outcome<Result<()>> = run(
        r#"
        (id: 1, when: At("2s"), fault: CrashBroker(Broker(1))),
        (id: 2, when: At("2s"), fault: FreezeBroker(Broker(2))),
        (id: 3, when: At("2s"), fault: CutProcess("main", Broker(3))),
        (id: 4, when: At("3s"), fault: CrashProcess("member")),
        (id: 5, when: At("2s"), fault: LoseRequest((api: DeleteTopics))),
        (id: 6, when: At("9s"), fault: CrashController),
        "#,
        |sim| async move {
            let bus = sim.bus();
            create(&bus).await?;
            bus.process("member", |bus| async move { drop(consume(bus).await) });
            tokio::time::sleep(Duration::from_secs(8)).await;
            sim.quiesce();
            assert!(sim.is_broker_up(1)?);
            send(&bus, 5).await
        },
    );
    let report = report(outcome);
    let ended: Vec<_> = report.faults.iter().map(|fault| fault.ended.is_some()).collect();
    assert_eq!(ended, [true, true, true, true, true, false]);
    assert_eq!(fault(&report, 6).struck, None);
    assert_eq!(count(&report, "process member restarts"), 1);
}

#[test]
fn a_plan_ends_its_faults_by_itself() {
    let mut quiet = crate::plan("(id: 1, when: At(\"1s\"), fault: CrashBroker(Broker(1)))");
    quiet.quiesce_at = Some(bus_sim::SimTime::from_nanos(5_000_000_000));
    let config = bus_sim::SimConfig { brokers: 1, plan: quiet, ..Default::default() };
    let outcome = bus_sim::Sim::new(config).unwrap().run(|sim| async move {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(!sim.is_broker_up(1)?);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(sim.is_broker_up(1)?);
        Result::<()>::Ok(())
    });
    report(outcome);
}

#[test]
fn a_plan_gives_the_same_trace_each_time() {
    let faults = r#"
        (id: 1, when: Request(api: Fetch, is: Handled, nth: 9), fault: CrashBroker(Broker(2)),
         until: Some(For("2s"))),
        (id: 2, when: At("5s"), fault: CrashProcess("member"), until: Some(For("1s"))),
    "#;
    let [first, second] = [(); 2].map(|()| report(run(faults, work)));
    assert_eq!(first.trace_hash, second.trace_hash);
    assert_eq!(first.faults, second.faults);
}
