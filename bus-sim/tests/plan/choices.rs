//! Choices of whole runs: what is recorded gives the run again, and what is left out does no harm.

use bus_core::Result;
use bus_sim::choice::{Label, Overrides};
use bus_sim::{Sim, SimConfig, SimHandle, SimReport};

use crate::{consume, create, plan, report, send};

/// A group at work.
async fn work(sim: SimHandle) -> Result<()> {
    let bus = sim.bus();
    create(&bus).await?;
    for name in ["a", "b"] {
        bus.process(name, |bus| async move { drop(consume(bus).await) });
    }
    send(&bus, 20).await
}

/// Of seed 0, whose ids are those of a run that is told its choices.
fn run(overrides: Overrides) -> SimReport {
    let plan = plan(
        r#"
        (
            id: 1,
            when: Request(api: Produce, is: Answered, nth: 3),
            fault: CrashBroker(Leader("orders", 0)),
            until: Some(For("3s")),
        ),
        (id: 2, when: At("1s"), fault: CrashController),
        "#,
    );
    let config =
        SimConfig { brokers: 3, plan, overrides, record_choices: true, ..Default::default() };
    report(Sim::new(config).expect("a valid configuration").run(work))
}

#[test]
fn the_recorded_choices_are_the_run() {
    let first = run(Overrides::default());
    let labels = [Label::Latency, Label::ReconnectBackoff, Label::ControllerElection];
    let chosen = &first.choices.chosen;
    assert!(labels.iter().all(|label| chosen.iter().any(|chosen| chosen.label == *label)));
    let again = run(Overrides::only(chosen.iter().map(|chosen| (chosen.key, chosen.value))));
    assert_eq!(first.trace_hash, again.trace_hash);
    assert_eq!(first.choices, again.choices);
}

#[test]
fn choices_that_are_left_out_do_no_harm() {
    let quiet = run(Overrides::only([]));
    assert_eq!(quiet.choices.chosen, []);
    assert!(quiet.choices.made_harmless > 100);
    assert_eq!(quiet.trace_hash, run(Overrides::only([])).trace_hash);
}
