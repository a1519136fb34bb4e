//! Faults of commits at databases outside of the bus: each does what it says, once or until its
//! end, and the report tells.

use std::time::Duration;

use bus_core::Result;
use bus_sim::SimHandle;
use bus_sim::fault::CommitFate::{AnswerLost, Crashed, Late, Lost, Ordinary, Refused};

use crate::{count, fault, report, run};

/// What comes of five commits of the process `shop`, a second apart.
fn five(faults: &str) -> (Vec<bus_sim::fault::CommitFate>, bus_sim::SimReport) {
    let (told, fates) = std::sync::mpsc::channel();
    let outcome = run(faults, |sim: SimHandle| async move {
        let inside = sim.clone();
        sim.bus().process("shop", move |_| {
            let (sim, told) = (inside.clone(), told.clone());
            async move {
                for _ in 0..5 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    told.send(sim.commits("shop", "db")).expect("the test listens");
                }
            }
        });
        tokio::time::sleep(Duration::from_secs(7)).await;
        Result::Ok(())
    });
    let report = report(outcome);
    (fates.iter().collect(), report)
}

#[test]
fn each_fault_strikes_the_commit_that_triggers_it() {
    let after = |n: u32, what: &str| {
        format!("(id: {n}, when: Commit(process: \"shop\", database: \"db\", nth: {n}), {what}),")
    };
    let faults = [
        after(1, "fault: RefuseCommit(\"shop\", \"db\")"),
        after(2, "fault: LoseCommit(\"shop\", \"db\")"),
        after(3, "fault: LoseCommitAnswer(\"shop\", \"db\")"),
        after(4, "fault: DelayCommit(\"shop\", \"db\", \"3s\")"),
    ];
    let (fates, report) = five(&faults.concat());
    assert_eq!(fates, [Refused, Lost, AnswerLost, Late(Duration::from_secs(3)), Ordinary]);
    for id in 1..=4 {
        let fault = fault(&report, id);
        assert!(fault.has_changed() && fault.ended.is_some(), "{fault:?}");
        assert_eq!(fault.struck.as_ref().unwrap().on, "shop at db");
    }
    assert_eq!(count(&report, "shop commits at db: done, but the answer is lost"), 1);
    assert_eq!(count(&report, "shop commits at db"), 4, "an ordinary one is no event");
}

#[test]
fn a_fault_with_an_end_strikes_all_until_then() {
    let (fates, _) = five(
        r#"(
            id: 1,
            when: At("1500ms"),
            fault: RefuseCommit("shop", "db"),
            until: Some(For("2s")),
        )"#,
    );
    assert_eq!(fates, [Ordinary, Refused, Refused, Ordinary, Ordinary]);
}

#[test]
fn when_all_heals_no_commit_fails_any_more() {
    let (told, fates) = std::sync::mpsc::channel();
    let faults = r#"(
        id: 1,
        when: At("0s"),
        fault: LoseCommit("main", "db"),
        until: Some(For("1h")),
    )"#;
    let outcome = run(faults, |sim: SimHandle| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        told.send(sim.commits("main", "db")).expect("the test listens");
        sim.quiesce();
        told.send(sim.commits("main", "db")).expect("the test listens");
        Result::Ok(())
    });
    report(outcome);
    assert_eq!(fates.iter().collect::<Vec<_>>(), [Lost, Ordinary]);
}

#[test]
fn a_process_may_crash_at_its_commit_and_go_on_later() {
    let (fates, report) = five(
        r#"(
            id: 1,
            when: Commit(process: "shop", database: "db", nth: 2),
            fault: CrashProcess("shop"),
            until: Some(For("1s")),
        )"#,
    );
    assert_eq!(fates[..2], [Ordinary, Crashed]);
    assert!(fates[2..].iter().all(|fate| *fate == Ordinary) && fates.len() > 4, "{fates:?}");
    assert!(fault(&report, 1).has_changed());
}

#[test]
fn a_wrong_name_is_told() {
    let (fates, report) = five(
        r#"
        (id: 1, when: At("1s"), fault: LoseCommit("shop", "bd")),
        (id: 2, when: At("1s"), fault: LoseCommit("shp", "db")),
        (id: 3, when: At("1s"), fault: LoseCommit("main", "db")),
        "#,
    );
    assert_eq!(fates, [Ordinary; 5]);
    let on = |id| fault(&report, id).struck.clone().unwrap().on;
    assert_eq!(on(1), "nobody: shop does not commit at \"bd\", but \"db\"");
    assert_eq!(on(2), "nobody: no process \"shp\"");
    assert_eq!(on(3), "nobody: main does not commit at \"db\", but nowhere");
    assert!(report.faults.iter().all(|fault| !fault.has_changed()));
}
