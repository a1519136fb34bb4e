//! Order export on the simulator: without faults, and with a crash at each crash point.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bus_sim::{Outcome, Sim, SimConfig, SimHandle};
use scenarios::order_export::{self, OrderExport, guarantee, point};
use scenarios::{CrashPoints, Form, Reached, Report, Verdict};

#[test]
fn both_forms_hold_when_nothing_crashes() {
    for form in Form::ALL {
        let outcome = simulate(1, |_| OrderExport::in_form(*form));
        let report = finished(outcome);
        assert_eq!(report.verdict, Verdict::Held, "{form}: {report:#?}");
        assert_eq!(report.records, 30, "{form}: {report:#?}");
        assert_eq!(report.partitions.len(), 3);
        assert!(report.partitions.iter().all(|p| p.records > 0 && p.leader.is_some()));
        let group = &report.groups[0];
        assert_eq!((group.state.as_str(), group.lag), ("Stable", 0), "{form}: {group:#?}");
        assert!(group.members.iter().all(|member| member.assignment.len() == 1), "{group:#?}");
    }
}

#[test]
fn sound_holds_with_a_crash_at_each_crash_point() {
    for point in point::all(Form::Sound) {
        let report = crash_once(2, Form::Sound, point);
        assert_eq!(report.verdict, Verdict::Held, "crash at {point:?}: {report:#?}");
    }
}

#[test]
fn as_written_loses_the_order_that_was_committed_and_not_published() {
    let report = crash_once(3, Form::AsWritten, point::COMMITTED_NOT_PUBLISHED);
    assert_eq!(report.verdict, Verdict::Violated, "{report:#?}");
    assert_eq!(report.broken[0].guarantee, guarantee::EXPORTED, "{report:#?}");
    let lost = &report.broken[0].sentence;
    assert!(lost.starts_with("order-") && lost.contains("-03 was confirmed"), "{report:#?}");
    assert_eq!(report.records, 29, "{report:#?}");
}

#[test]
fn as_written_loses_nothing_at_its_other_crash_points() {
    for point in point::all(Form::AsWritten) {
        if *point != point::COMMITTED_NOT_PUBLISHED {
            let report = crash_once(4, Form::AsWritten, point);
            assert_eq!(report.verdict, Verdict::Held, "crash at {point:?}: {report:#?}");
        }
    }
}

#[test]
fn an_export_that_is_repeated_is_not_silent() {
    let report = crash_once(5, Form::AsWritten, point::EXPORTED_NOT_COMMITTED);
    let repeated = report.notes.iter().filter(|text| text.contains("repeatedly"));
    assert_eq!(repeated.count(), 1, "{report:#?}");
}

#[test]
fn a_relay_that_never_comes_back_stalls_the_export() {
    let outcome = simulate(6, |sim| {
        let reached = Arc::default();
        crash_at(sim, Form::Sound, point::READ_NOT_PUBLISHED, reached, Restart::Never)
    });
    let report = finished(outcome);
    assert_eq!(report.verdict, Verdict::Stalled, "{report:#?}");
    let explanation = report.notes.last().expect("a stall is explained");
    assert!(explanation.contains("rows in the outbox"), "{report:#?}");
}

#[test]
fn equal_seeds_give_equal_traces() {
    let hash = |seed| {
        let outcome = simulate(seed, |_| OrderExport::in_form(Form::Sound));
        outcome.report.trace_hash
    };
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}

/// Runs with one crash, the third time that any process reaches the point.
fn crash_once(seed: u64, form: Form, point: &'static str) -> Report {
    let reached = Arc::new(AtomicUsize::new(0));
    let outcome = simulate(seed, |sim| {
        crash_at(sim, form, point, Arc::clone(&reached), Restart::After(PAUSE))
    });
    let reached = reached.load(Ordering::Relaxed);
    assert!(reached >= NTH, "{point:?} was reached {reached} times, so nothing crashed there");
    finished(outcome)
}

enum Restart {
    After(Duration),
    Never,
}

fn crash_at(
    sim: &SimHandle,
    form: Form,
    point: &'static str,
    reached: Arc<AtomicUsize>,
    restart: Restart,
) -> OrderExport {
    let sim = sim.clone();
    let crash_points = CrashPoints::new(move |process, at| {
        if at != point || reached.fetch_add(1, Ordering::Relaxed) + 1 != NTH {
            return Reached::Continue;
        }
        sim.crash(process).expect("the process runs");
        if let Restart::After(pause) = restart {
            let (sim, process) = (sim.clone(), process.to_owned());
            let bus = sim.bus();
            drop(bus.spawn("restart", async move {
                tokio::time::sleep(pause).await;
                sim.restart(&process).expect("the process has crashed");
            }));
        }
        Reached::Crash
    });
    OrderExport { crash_points, ..OrderExport::in_form(form) }
}

fn simulate(
    seed: u64,
    config: impl FnOnce(&SimHandle) -> OrderExport,
) -> Outcome<bus_core::Result<Report>> {
    let sim = Sim::new(SimConfig { seed, ..Default::default() }).expect("the default is valid");
    sim.run(|sim| order_export::run(sim.bus(), config(&sim)))
}

fn finished(outcome: Outcome<bus_core::Result<Report>>) -> Report {
    outcome.result.expect("the simulation ends").expect("no error needs a person")
}

/// At which of the times that a point is reached the process crashes there.
const NTH: usize = 3;
/// Longer than it takes to write a batch, shorter than a session timeout.
const PAUSE: Duration = Duration::from_secs(1);
