//! Triggers: a fault strikes when its trigger comes, once.

use std::time::Duration;

use crate::{count, create, fault, report, run, send, send_five};

#[test]
fn a_fault_comes_between_an_append_and_its_acknowledgment() {
    let report = report(run(
        r#"(
            id: 1,
            when: Request(api: Produce, is: Answered, nth: 2),
            fault: CrashBroker(Leader("orders", 0)),
            until: Some(For("5s")),
        )"#,
        send_five,
    ));
    let struck = fault(&report, 1).struck.as_ref().unwrap();
    assert!(struck.on.starts_with("broker-") && struck.has_changed, "{struck:?}");
    assert_eq!(count(&report, "duplicate of orders-0@1"), 1, "the retry is recognized");
    // Whatever is appended is appended once.
    assert_eq!(count(&report, "! appended orders-0@"), 5);
}

#[test]
fn handled_is_before_replicas_have_it() {
    let report = report(run(
        r#"(
            id: 1,
            when: Request(api: Produce, is: Handled, nth: 2),
            fault: CrashBroker(Leader("orders", 0)),
        )"#,
        send_five,
    ));
    assert!(fault(&report, 1).has_changed());
    // The new leader does not have the second record: it is appended again, not a duplicate.
    assert_eq!(count(&report, "duplicate of"), 0);
    assert_eq!(count(&report, "! appended orders-0@1 "), 2);
}

#[test]
fn a_request_that_is_sent_can_still_be_lost() {
    let report = report(run(
        r#"(
            id: 1,
            when: Request(api: Produce, is: Sent, from: Some(Process("main")), nth: 3),
            fault: LoseRequest((api: Produce)),
        )"#,
        send_five,
    ));
    let lost = fault(&report, 1);
    assert!(lost.has_changed(), "{lost:?}");
    assert_eq!(lost.ended, lost.struck.as_ref().map(|struck| struck.at));
    assert_eq!(count(&report, "duplicate of"), 0);
}

#[test]
fn a_response_that_is_answered_can_still_be_lost() {
    let report = report(run(
        r#"(
            id: 1,
            when: Request(api: Produce, is: Answered, nth: 3),
            fault: LoseResponse((api: Produce)),
        )"#,
        send_five,
    ));
    assert!(fault(&report, 1).has_changed());
    assert_eq!(count(&report, "duplicate of orders-0@2"), 1);
}

#[test]
fn times_facts_and_other_faults_are_triggers() {
    let report = report(run(
        r#"
        (id: 1, when: At("1s"), fault: CrashBroker(Follower("orders", 0)), until: Some(For("10s"))),
        (
            id: 2,
            when: Fact(is: InSyncShrank("orders", 0)),
            fault: CrashController,
        ),
        (id: 3, when: After(fault: 2, by: "3s"), fault: ElectPreferred),
        (id: 4, when: Fact(is: TransactionState("t", "Ongoing")), fault: CrashController),
        "#,
        |sim| async move {
            let bus = sim.bus();
            create(&bus).await?;
            tokio::time::sleep(Duration::from_secs(30)).await;
            send(&bus, 1).await
        },
    ));
    let at = |id| fault(&report, id).struck.as_ref().map(|struck| struck.at);
    assert_eq!(at(1).unwrap().elapsed(), Duration::from_secs(1));
    assert!(at(2) > at(1), "the session of the broker ran out");
    assert_eq!(at(3), at(2).map(|at| at + Duration::from_secs(3)));
    assert_eq!(at(4), None);
    assert_eq!(fault(&report, 1).ended.unwrap().elapsed(), Duration::from_secs(11));
    assert_eq!(count(&report, "fault 2 strikes CrashController controller"), 1);
}

#[test]
fn an_application_is_crashed_where_it_says_to_be() {
    let report = report(run(
        r#"(
            id: 1,
            when: Reached(process: "sender", point: "sent", nth: 2),
            fault: CrashProcess("sender"),
            until: Some(For("1s")),
        )"#,
        |sim| async move {
            create(&sim.bus()).await?;
            let handle = sim.clone();
            sim.bus().process("sender", move |bus| {
                let sim = handle.clone();
                async move {
                    for _ in 0..3 {
                        drop(send(&bus, 1).await);
                        if sim.reached("sender", "sent") {
                            std::future::pending::<()>().await;
                        }
                    }
                }
            });
            tokio::time::sleep(Duration::from_secs(10)).await;
            Ok(())
        },
    ));
    let crashed = fault(&report, 1);
    assert!(crashed.has_changed() && crashed.ended.is_some(), "{crashed:?}");
    assert_eq!(crashed.struck.as_ref().unwrap().on, "sender");
    // Two before the crash, three of the next incarnation.
    assert_eq!(count(&report, "! appended orders-0@"), 5);
}

#[test]
fn a_fault_without_a_target_strikes_nobody() {
    let report = report(run(
        r#"
        (id: 1, when: At("1s"), fault: CrashBroker(Leader("nothing", 0))),
        (id: 2, when: At("1s"), fault: CrashProcess("nobody")),
        (id: 3, when: At("1s"), fault: CutBrokers(Broker(2), Broker(2))),
        "#,
        |sim| async move {
            create(&sim.bus()).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(())
        },
    ));
    for (id, why) in [(1, "there is no nothing-0"), (2, "no process"), (3, "both are broker-2")] {
        let struck = fault(&report, id).struck.as_ref().unwrap();
        assert!(struck.on.contains(why) && !struck.has_changed, "{struck:?}");
    }
}
