//! Commits that fail before, behind, or without the knowledge of their process: the sound order
//! export gets over them, the one as written does not; and of four ways to deal with an outcome
//! that is not known, three are found to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus_sim::explore::{Exploration, Replay, Violation};
use bus_sim::fault::{self, Fault, FaultKind, Plan, Surroundings, Trigger, draw};
use bus_sim::{Sim, SimConfig, SimHandle, sometimes};
use parking_lot::Mutex;
use scenarios::order_export::{self, OrderExport};
use scenarios::store::{Row, Store, StoreError};
use scenarios::{CommitFate, Commits, Form, Setting, Verdict};
use serde::{Deserialize, Serialize};

/// The kinds of faults that this is about.
const KINDS: [FaultKind; 4] = [
    FaultKind::RefuseCommit,
    FaultKind::LoseCommit,
    FaultKind::LoseCommitAnswer,
    FaultKind::DelayCommit,
];

/// The plan of a simulation decides what comes of commits.
fn commits(sim: &SimHandle) -> Commits {
    let sim = sim.clone();
    Commits::new(move |process, database| match sim.commits(process, database) {
        fault::CommitFate::Ordinary => CommitFate::Ordinary,
        fault::CommitFate::Refused => CommitFate::Refused,
        fault::CommitFate::Lost => CommitFate::Lost,
        fault::CommitFate::AnswerLost => CommitFate::AnswerLost,
        fault::CommitFate::Late(by) => CommitFate::Late(by),
        fault::CommitFate::Crashed => CommitFate::Crashed,
    })
}

/// What there is to strike, learned from a run in which nothing goes wrong.
fn seen_in<F>(app: impl FnOnce(SimHandle) -> F, kinds: &[FaultKind]) -> Surroundings
where
    F: Future<Output = Result<(), Vec<Violation>>>,
{
    let config = SimConfig { record_events: true, ..SimConfig::default() };
    let quiet = Sim::new(config).expect("the default is valid").run(app);
    let nothing_yet = Surroundings {
        kinds: kinds.iter().copied().collect(),
        ..Surroundings::new(1, Duration::from_secs(8))
    };
    nothing_yet.seen_in(&quiet.report)
}

mod order_export_on_bad_days {
    use super::*;

    async fn exported(sim: SimHandle, form: Form) -> Result<(), Vec<Violation>> {
        let (decide, sized) = (commits(&sim), sim.clone());
        let commits = Commits::new(move |process, database| {
            let fate = decide.decide(process, database);
            sometimes!(fate == CommitFate::Refused, "a commit is refused");
            sometimes!(fate == CommitFate::Lost, "a commit is lost");
            sometimes!(fate == CommitFate::AnswerLost, "the answer to a commit is lost");
            sometimes!(matches!(fate, CommitFate::Late(_)), "a commit is late");
            fate
        });
        let setting = Setting::default()
            .with_commits(commits)
            .with_sizes(move |name, range| sized.size(name, range));
        let config = OrderExport { confirmed: 12, ..OrderExport::in_form(form) }.of(&setting);
        let report = order_export::run(sim.bus(), config).await;
        let report = report.map_err(|error| vec![Violation::new("no failure", error.message())])?;
        if report.verdict == Verdict::Held {
            return Ok(());
        }
        let broken = report.broken.iter();
        let broken: Vec<_> =
            broken.map(|broken| Violation::new(broken.guarantee, &broken.sentence)).collect();
        let stalled = || vec![Violation::new("progress", report.notes.join("; "))];
        Err(if broken.is_empty() { stalled() } else { broken })
    }

    #[test]
    fn sound_holds_however_commits_end() {
        let kinds: Vec<_> = KINDS.into_iter().chain([FaultKind::CrashProcess]).collect();
        let surroundings = seen_in(|sim| exported(sim, Form::Sound), &kinds);
        let database = || order_export::DATABASE.to_owned();
        let committing = [order_export::ORDER_SERVICE, order_export::OUTBOX_RELAY];
        let expected = committing.map(|process| (process.to_owned(), database()));
        assert_eq!(surroundings.commits, expected);
        let explored = Exploration::new("order-export-commits", SimConfig::default())
            .seeds(0..200)
            .faults(|seed| draw(seed, &surroundings))
            .checks_in(module_path!())
            .run(|sim| exported(sim, Form::Sound));
        explored.assert_held();
        explored.assert_covered();
    }

    /// The order is confirmed, its customer asks again, and nobody publishes the event.
    #[test]
    fn as_written_forgets_the_event_of_a_commit_without_an_answer() {
        let surroundings = seen_in(|sim| exported(sim, Form::AsWritten), &KINDS);
        let explored = Exploration::new("order-export-commits", SimConfig::default())
            .seeds(0..200)
            .faults(|seed| draw(seed, &surroundings))
            .run(|sim| exported(sim, Form::AsWritten));
        let found = &explored.violations[0];
        assert_eq!(found.violations[0].guarantee, order_export::guarantee::EXPORTED);
        let [planned] = found.replay.case.plan.faults.as_slice() else {
            panic!("{}", found.replay)
        };
        assert!(
            matches!(&planned.fault, Fault::LoseCommitAnswer(..) | Fault::DelayCommit(..)),
            "{planned:?}"
        );
        assert!(matches!(&planned.when, Trigger::Commit { nth: 1, .. }), "{planned:?}");
    }
}

/// What a till does if the outcome of its commit is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handling {
    /// It looks whether the customer has paid, and tries again under the same key if not.
    LooksAgain,
    /// It tries again, as something new.
    RepeatsBlindly,
    /// It tells the customer that the payment failed.
    TakesItForFailed,
    /// It tells the customer that the payment is done.
    TakesItForDone,
}

#[derive(Serialize, Deserialize)]
struct Payment {
    key: String,
    customer: String,
}

impl Row for Payment {
    const TABLE: &'static str = "payments";

    fn key(&self) -> String {
        self.key.clone()
    }
}

const ONCE: &str = "customers pay once";
const TOLD: &str = "customers are told the truth";

/// What each customer was told: whether it has paid.
type Told = Arc<Mutex<BTreeMap<String, bool>>>;

/// Customers pay at a till. They are judged when everything that was late has come.
async fn paid(sim: SimHandle, handling: Handling) -> Result<(), Vec<Violation>> {
    let store = Store::named("bank");
    let used = store.used_by("till", &commits(&sim));
    let customers = sim.size("customers", 1..=20);
    let told = Told::default();
    let told_inside = Arc::clone(&told);
    sim.bus().process("till", move |_| {
        let (store, told) = (used.clone(), Arc::clone(&told_inside));
        async move {
            for n in 1..=customers {
                let customer = format!("customer-{n:02}");
                let has_paid = pay(&store, &customer, handling).await;
                told.lock().insert(customer, has_paid);
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    });
    while told.lock().len() < customers {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    let payments = store.all::<Payment>().expect("they can be read");
    let mut violations = Vec::new();
    for (customer, has_paid) in &*told.lock() {
        let count = payments.iter().filter(|payment| payment.customer == *customer).count();
        if count > 1 {
            violations.push(Violation::new(ONCE, format!("{customer} paid {count} times")));
        } else if *has_paid != (count == 1) {
            let sentence = format!("{customer} was told {has_paid}, and paid {count} times");
            violations.push(Violation::new(TOLD, sentence));
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

/// Has a customer pay; returns whether it is told that it has.
async fn pay(store: &Store, customer: &str, handling: Handling) -> bool {
    for attempt in 1.. {
        let mut transaction = store.begin();
        let key = match handling {
            Handling::RepeatsBlindly => format!("{customer}, attempt {attempt}"),
            _ => customer.to_owned(),
        };
        let payment = Payment { key, customer: customer.to_owned() };
        transaction.insert(&payment).expect("it can be written");
        match (transaction.commit().await, handling) {
            (Ok(()), _) => break,
            // An earlier attempt came after all.
            (Err(StoreError::DuplicateKey { .. }), _) => break,
            (Err(error), Handling::TakesItForFailed) if error.is_indeterminate() => return false,
            (Err(error), Handling::TakesItForDone) if error.is_indeterminate() => break,
            (Err(_), _) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    true
}

#[test]
fn who_looks_again_is_right_however_commits_end() {
    let explored = tills(Handling::LooksAgain);
    explored.assert_held();
}

#[test]
fn who_repeats_blindly_pays_twice() {
    let replay = caught(Handling::RepeatsBlindly, ONCE);
    let [planned] = replay.case.plan.faults.as_slice() else { panic!("{replay}") };
    assert!(
        matches!(&planned.fault, Fault::LoseCommitAnswer(..) | Fault::DelayCommit(..)),
        "{planned:?}"
    );
}

#[test]
fn who_takes_the_unknown_for_failed_or_done_tells_lies() {
    caught(Handling::TakesItForFailed, TOLD);
    caught(Handling::TakesItForDone, TOLD);
}

fn tills(handling: Handling) -> bus_sim::explore::Explored {
    let surroundings = seen_in(|sim| paid(sim, handling), &KINDS);
    assert_eq!(surroundings.commits, [("till".to_owned(), "bank".to_owned())]);
    Exploration::new("till", SimConfig::default())
        .seeds(0..300)
        .faults(move |seed| draw(seed, &surroundings))
        .run(|sim| paid(sim, handling))
}

/// The failure of a wrong handling, shrunk to one fault of the first commit of one customer, which
/// a file replays.
fn caught(handling: Handling, guarantee: &str) -> Replay {
    let explored = tills(handling);
    let found = explored.violations.first().expect("it is wrong");
    let replay = &found.replay;
    assert_eq!(replay.expect.guarantee, guarantee, "{replay}");
    assert_eq!(replay.shrunk.sizes["customers"], (20, 1), "{replay}");
    let [planned] = replay.case.plan.faults.as_slice() else { panic!("{replay}") };
    let (process, database) = ("till".to_owned(), "bank".to_owned());
    assert_eq!(planned.when, Trigger::Commit { process, database, nth: 1 }, "{replay}");

    let text = replay.to_text();
    assert!(text.contains("when: Commit(process: \"till\", database: \"bank\")"), "{text}");
    let read = Replay::from_bytes(text.as_bytes()).expect("it was written by us");
    let replayed = read.run(&SimConfig::default(), |sim| paid(sim, handling));
    assert!(replayed.is_reproduced && replayed.is_identical, "{:?}", replayed.violations);
    replay.clone()
}

/// A time, too, becomes the commit that came before it.
#[test]
fn a_fault_at_a_time_is_shrunk_to_one_at_a_commit() {
    let plan: Plan = ron::from_str(
        r#"(faults: [(id: 1, when: At("2s"), fault: LoseCommitAnswer("till", "bank"))])"#,
    )
    .expect("it is a plan");
    let drawn = fault::Drawn {
        plan,
        kinds: BTreeSet::from([FaultKind::LoseCommitAnswer]),
        latency_max: Duration::from_millis(1),
    };
    let explored = Exploration::new("till", SimConfig::default())
        .seeds(0..1)
        .faults(|_| drawn.clone())
        .run(|sim| paid(sim, Handling::RepeatsBlindly));
    let replay = &explored.violations[0].replay;
    let [planned] = replay.case.plan.faults.as_slice() else { panic!("{replay}") };
    assert!(matches!(planned.when, Trigger::Commit { nth: 1, .. }), "{replay}");
}
