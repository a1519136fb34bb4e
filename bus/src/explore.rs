//! Explore: the applications of the catalogue on their worst days.

pub mod traces;
pub mod zoo;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bus_check::verdict::Finding;
use bus_check::{Durability, Environment, History, Recorder};
use bus_core::{Bus, BusUrl, Error, ErrorKind, Result};
use bus_sim::explore::{Exploration, PROGRESS, Violation};
use bus_sim::fault::{self, Envelope, FaultKind, Surroundings, draw};
use bus_sim::{Sim, SimConfig, SimHandle, SimReport};
use parking_lot::Mutex;
use scenarios::{
    Application, CommitFate, Commits, CrashPoints, Form, Reached, Report, Setting, Verdict,
};

/// That no process of an application fails in a way that a person has to mend.
pub const NO_FAILURE: &str = "no failure";

/// Under what a replay file keeps the form of the application, and the options of its world.
pub const FORM: &str = "form";
/// See [`FORM`].
pub const SIM: &str = "sim";

/// The worst days of a form of an application: the worlds that it is run in, and what goes wrong.
#[derive(Clone, Debug)]
pub struct WorstDays {
    application: &'static Application,
    form: Form,
    options: String,
    world: SimConfig,
    surroundings: Option<Surroundings>,
}

impl WorstDays {
    /// Those that the application asks for, with `options` such as `brokers=3&linger.ms=0` that win
    /// over its own.
    ///
    /// # Errors
    /// [`InvalidConfig`](bus_core::ErrorKind::InvalidConfig), naming the option.
    pub fn new(application: &'static Application, form: Form, options: &str) -> Result<Self> {
        let own = (application.worst_day.options)(form);
        let url: BusUrl = format!("sim://?{}", overridden(own, options)).parse()?;
        let mut world = SimConfig::from_url(&url)?;
        world.time_limit = world.time_limit.min(TIME_LIMIT);
        world.event_limit = world.event_limit.min(EVENT_LIMIT);
        world.record_facts = true;
        let options = options.to_owned();
        Ok(Self { application, form, options, world, surroundings: None })
    }

    /// Those with faults of these kinds: names with commas between them, `all`, or `none`; `beyond`
    /// among them is the envelope of that name. Without any, what the application asks for. A run
    /// without faults shows what there is to strike.
    ///
    /// # Errors
    /// [`InvalidArgument`](bus_core::ErrorKind::InvalidArgument) for an unknown kind, naming all.
    pub fn with_faults(mut self, kinds: Option<&str>, envelope: Envelope) -> Result<Self> {
        let asked_for: Vec<_> = match kinds {
            Some("none") => return Ok(self),
            Some(kinds) => kinds.split(',').map(str::trim).filter(|name| *name != "all").collect(),
            None => self.application.worst_day.faults.to_vec(),
        };
        let (beyond, kinds): (Vec<_>, Vec<_>) =
            asked_for.into_iter().partition(|name| *name == scenarios::BEYOND);
        let envelope = if beyond.is_empty() { envelope } else { Envelope::Beyond };
        let kinds = kinds.into_iter().map(kind).collect::<Result<_>>()?;
        let world = SimConfig { record_events: true, ..self.world.clone() };
        let quiet = Sim::new(world)?.run(judged(self.application, self.form));
        let nothing = Surroundings::new(self.world.brokers, self.application.worst_day.horizon);
        let surroundings = Surroundings { envelope, kinds, ..nothing };
        self.surroundings = Some(surroundings.seen_in(&quiet.report));
        Ok(self)
    }

    /// What goes wrong on the day of a seed; none if nothing does on any day.
    pub const fn surroundings(&self) -> Option<&Surroundings> {
        self.surroundings.as_ref()
    }

    /// The configuration of the worlds, but for seed and plan.
    pub const fn world(&self) -> &SimConfig {
        &self.world
    }

    /// An exploration of these days, with their faults; nothing in the environment changes it.
    pub fn exploration(&self) -> Exploration<'_> {
        let exploration =
            Exploration::new(self.application.name, self.world.clone()).without_environment();
        match &self.surroundings {
            Some(surroundings) => exploration.faults(|seed| draw(seed, surroundings)),
            None => exploration,
        }
    }

    /// The application and its judge.
    pub fn judged(&self) -> impl Fn(SimHandle) -> Judged + Sync + use<> {
        judged(self.application, self.form)
    }

    /// As [`judged`](Self::judged), with what the judge of the last run had before it.
    pub fn judged_with_evidence(&self) -> (impl Fn(SimHandle) -> Judged + Sync + use<>, Evidence) {
        let evidence = Evidence::default();
        (judged_into(self.application, self.form, Some(evidence.clone())), evidence)
    }

    /// What a replay file has to know to have the same world again.
    pub fn with(&self) -> BTreeMap<String, String> {
        let form = self.application.form_name(self.form).to_owned();
        let mut with = BTreeMap::from([(FORM.to_owned(), form)]);
        if !self.options.is_empty() {
            with.insert(SIM.to_owned(), self.options.clone());
        }
        with
    }
}

/// Runs an application in a world once, and returns the guarantees that were broken: those that the
/// application judges itself, and those of [`bus_check`], by its history and, if the world records
/// its facts, by what really happened.
pub fn judged(
    application: &'static Application,
    form: Form,
) -> impl Fn(SimHandle) -> Judged + Sync {
    judged_into(application, form, None)
}

fn judged_into(
    application: &'static Application,
    form: Form,
    evidence: Option<Evidence>,
) -> impl Fn(SimHandle) -> Judged + Sync {
    move |sim| {
        let (reached, sized, committed) = (sim.clone(), sim.clone(), sim.clone());
        let crash_points = CrashPoints::new(move |process, point| {
            if reached.reached(process, point) { Reached::Crash } else { Reached::Continue }
        });
        let commits =
            Commits::new(move |process, database| fate(committed.commits(process, database)));
        let setting = Setting::new(crash_points)
            .with_commits(commits)
            .with_sizes(move |name, range| sized.size(name, range));
        let run =
            recorded_into(sim, evidence.clone(), move |bus| (application.run)(bus, form, setting));
        Box::pin(async move { judge_report(run.await) })
    }
}

/// What comes of a commit, in the words of applications.
const fn fate(fate: fault::CommitFate) -> CommitFate {
    match fate {
        fault::CommitFate::Ordinary => CommitFate::Ordinary,
        fault::CommitFate::Refused => CommitFate::Refused,
        fault::CommitFate::Lost => CommitFate::Lost,
        fault::CommitFate::AnswerLost => CommitFate::AnswerLost,
        fault::CommitFate::Late(by) => CommitFate::Late(by),
        fault::CommitFate::Crashed => CommitFate::Crashed,
    }
}

/// Runs code on a bus that records what its clients do, and has [`bus_check`] judge the run when it
/// is over. In the end all faults are healed, and fresh readers read every log.
///
/// ```
/// use bus::explore::{NO_FAILURE, recorded};
/// use bus_core::{NewTopic, ProducerConfig, ProducerRecord};
/// use bus_sim::SimConfig;
/// use bus_sim::explore::{Exploration, Violation};
///
/// let config = SimConfig { record_facts: true, ..SimConfig::default() };
/// let explored = Exploration::new("orders", config).seeds(0..10).run(|sim| async {
///     let run = recorded(sim, |bus| async move {
///         bus.admin()?.create_topic(NewTopic::new("orders")).await?;
///         let producer = bus.producer(ProducerConfig::default())?;
///         producer.send(ProducerRecord::to("orders").value("1")).await
///     });
///     run.await.map_err(|error| vec![Violation::new(NO_FAILURE, error.to_string())])?;
///     Ok(())
/// });
/// explored.assert_held();
/// ```
///
/// # Errors
/// That of the code, and of the readers.
pub async fn recorded<T, F, Fut>(sim: SimHandle, run: F) -> Result<T>
where
    F: FnOnce(Bus) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    recorded_into(sim, None, run).await
}

async fn recorded_into<T, F, Fut>(sim: SimHandle, evidence: Option<Evidence>, run: F) -> Result<T>
where
    F: FnOnce(Bus) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let recorder = Recorder::default();
    let bus = recorder.record(&sim.bus());
    let history = recorder.clone();
    sim.judge_afterwards(move |report| {
        let history = history.into_history();
        let judged = judge_history(&history, report);
        let violations = judged.violations().map(violation).collect();
        if let Some(evidence) = evidence {
            evidence.keep(history, judged);
        }
        violations
    });
    let ran = run(bus).await;
    sim.quiesce();
    recorder.quiesced();
    recorder.audit().await?;
    ran
}

/// A run of an application, and its judge.
pub type Judged =
    std::pin::Pin<Box<dyn Future<Output = std::result::Result<(), Vec<Violation>>> + Send>>;

/// What was there for [`bus_check`] to judge of a run, and what it said. Clones hold the same.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    kept: Arc<Mutex<Option<(History, bus_check::Report)>>>,
}

impl Evidence {
    /// Shows that of the last run; none before that is over.
    pub fn show<T>(&self, show: impl FnOnce(&History, &bus_check::Report) -> T) -> Option<T> {
        self.kept.lock().as_ref().map(|(history, report)| show(history, report))
    }

    fn keep(&self, history: History, report: bus_check::Report) {
        *self.kept.lock() = Some((history, report));
    }
}

/// What [`bus_check`] says of a run.
fn judge_history(history: &History, report: &SimReport) -> bus_check::Report {
    let durability = match report.envelope {
        Envelope::Tolerated => Durability::Safe,
        Envelope::Beyond => Durability::Unsafe,
    };
    let environment = Environment { durability, ..Environment::default() };
    bus_check::judge(history, &environment, &bus_check::sim::cluster(report))
}

/// The name under which a finding is a violation.
pub(crate) fn guarantee_name(finding: &Finding) -> String {
    format!("{} {}", finding.id(), finding.guarantee.slug())
}

fn violation(finding: &Finding) -> Violation {
    Violation::new(guarantee_name(finding), finding.sentence())
}

/// What an application says of its run.
fn judge_report(ran: Result<Report>) -> std::result::Result<(), Vec<Violation>> {
    let report = match ran {
        Ok(report) => report,
        Err(error) => return Err(vec![Violation::new(NO_FAILURE, error.to_string())]),
    };
    let broken = report.broken.iter();
    let mut violations: Vec<_> =
        broken.map(|broken| Violation::new(broken.guarantee, &broken.sentence)).collect();
    if report.verdict == Verdict::Stalled {
        violations.push(Violation::new(PROGRESS, report.notes.join("; ")));
    }
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

/// Options of a URL with others that win over them: `brokers=3&linger.ms=0` with `brokers=1` are
/// `linger.ms=0&brokers=1`.
pub fn overridden(options: &str, others: &str) -> String {
    let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
    let won: BTreeSet<_> = others.split('&').map(name).collect();
    let kept = options.split('&').filter(|option| !won.contains(&name(option)));
    let all = kept.chain(others.split('&')).filter(|option| !option.is_empty());
    all.collect::<Vec<_>>().join("&")
}

/// The kind of faults of that name.
fn kind(name: &str) -> Result<FaultKind> {
    FaultKind::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| {
        let known = FaultKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        let message =
            format!("there is no fault {name:?}; there are {known}, beyond, all, and none");
        Error::new(ErrorKind::InvalidArgument, message)
    })
}

/// In the world. Above every deadline of an application.
const TIME_LIMIT: Duration = Duration::from_hours(1);
/// Some hundred times as many as a run has.
const EVENT_LIMIT: u64 = 5_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_options_win() {
        assert_eq!(overridden("", ""), "");
        assert_eq!(overridden("brokers=3", ""), "brokers=3");
        assert_eq!(overridden("", "brokers=3"), "brokers=3");
        let both = overridden("brokers=3&linger.ms=0", "brokers=1");
        assert_eq!(both, "linger.ms=0&brokers=1");
    }
}
