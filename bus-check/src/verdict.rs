//! The verdict: anomalies, judged by their conditions and by the ground truth.

use crate::check::white::White;
use crate::check::{self, Anomalies, Anomaly, Check, Promise};
use crate::environment::Environment;
use crate::guarantee::Guarantee;
use crate::history::{EntryId, History};
use crate::model::Model;
use crate::report::Report;
use crate::truth::{Cause, GroundTruth, Truth};

/// What an anomaly means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The guarantee must hold here, and does not.
    Forbidden,
    /// The guarantee need not hold here, but nothing has happened that would break it: a bug of the
    /// simulator or of a client.
    Unexplained,
    /// Whether the guarantee must hold is not known, or not what happened.
    Undecided,
    /// The guarantee need not hold here, and it is known what broke it.
    Explained,
}

impl Verdict {
    /// The verdict in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Unexplained => "permitted but unexplained",
            Self::Undecided => "undecided",
            Self::Explained => "permitted and explained",
        }
    }

    /// Whether something is wrong.
    pub const fn is_violation(self) -> bool {
        matches!(self, Self::Forbidden | Self::Unexplained)
    }
}

/// An anomaly with its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is broken.
    pub guarantee: Guarantee,
    /// What it means.
    pub verdict: Verdict,
    /// The anomaly with its evidence.
    pub anomaly: Anomaly,
    /// What explains it.
    pub explanation: Option<Explanation>,
}

/// What explains an anomaly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explanation {
    /// An entry of the history.
    Entry(EntryId),
    /// An event of the simulator.
    Event(Cause),
}

impl Finding {
    /// The id of the guarantee, such as `B2`.
    pub const fn id(&self) -> &'static str {
        self.guarantee.id()
    }

    /// What breaking the guarantee is called, such as `lost write, finally`.
    pub const fn name(&self) -> &'static str {
        self.guarantee.name()
    }

    /// What happened, in a sentence.
    pub fn sentence(&self) -> &str {
        &self.anomaly.sentence
    }

    /// The fewest entries of the history that prove it, in order.
    pub fn witness(&self) -> &[EntryId] {
        &self.anomaly.witness
    }

    /// The events of the cluster that prove it, by number, in order.
    pub fn events(&self) -> &[u64] {
        &self.anomaly.events
    }
}

/// How a guarantee fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub guarantee: Guarantee,
    /// How often it was put to the test.
    pub examined: u64,
    /// How many anomalies there are; the findings hold the first.
    pub anomalies: u64,
    /// The worst verdict.
    pub verdict: Option<Verdict>,
}

/// How many anomalies of one guarantee are told apart.
pub const FINDINGS_MAX: usize = 64;

/// Judges a history under the conditions of its run. `truth` is what is known beside it: a
/// [`Cluster`](crate::Cluster) of a simulation, or [`NoTruth`](crate::NoTruth), as on a real Kafka.
///
/// Nothing of the history is run again: equal arguments give an equal report.
pub fn judge(history: &History, environment: &Environment, truth: &dyn GroundTruth) -> Report {
    let model = Model::new(history, environment);
    let white = truth.cluster().map(|cluster| White::new(&model, cluster));
    let mut outcomes = Vec::with_capacity(check::ALL.len());
    let mut findings = Vec::new();
    for checker in check::ALL {
        let mut anomalies = Anomalies::keeping(FINDINGS_MAX);
        match (checker.check, &white) {
            (Check::History(check), _) => check(&model, &mut anomalies),
            (Check::Cluster(check), Some(white)) => check(&model, white, &mut anomalies),
            (Check::Cluster(_), None) => {}
        }
        let Anomalies { examined, count, first, .. } = anomalies;
        let mut worst = None;
        for anomaly in first {
            let (verdict, explanation) = decide(&model, &anomaly, truth);
            worst = Some(worst.map_or(verdict, |worst: Verdict| worst.min(verdict)));
            let guarantee = checker.guarantee;
            findings.push(Finding { guarantee, verdict, anomaly, explanation });
        }
        let guarantee = checker.guarantee;
        outcomes.push(Outcome { guarantee, examined, anomalies: count, verdict: worst });
    }
    findings.sort_by_key(|finding| finding.verdict);
    Report::new(history, outcomes, findings, truth.cluster())
}

fn decide(
    model: &Model<'_>,
    anomaly: &Anomaly,
    truth: &dyn GroundTruth,
) -> (Verdict, Option<Explanation>) {
    let ask = |question| {
        let last = anomaly.witness.last().map_or(u64::MAX, |last| model.at(*last));
        truth.why(question, last)
    };
    let is_inside = !anomaly.events.is_empty();
    let (explanation, is_told) = match anomaly.question.as_ref().map_or(Truth::Unknown, ask) {
        Truth::Because(cause) => (Some(Explanation::Event(cause)), true),
        Truth::Unexplained => (None, true),
        Truth::Unknown => {
            let event = anomaly.excused_by.and_then(|number| {
                let cluster = truth.cluster()?;
                let sentence = cluster.sentence(cluster.event(number)?);
                Some(Explanation::Event(Cause { event: number, sentence: sentence + "." }))
            });
            (event.or_else(|| anomaly.explained_by.map(Explanation::Entry)), is_inside)
        }
    };
    let verdict = match (anomaly.promise, &explanation) {
        (Promise::Required, _) => Verdict::Forbidden,
        (Promise::Open | Promise::NotPromised, Some(_)) => Verdict::Explained,
        (Promise::Open | Promise::NotPromised, None) if is_told => Verdict::Unexplained,
        (Promise::Open | Promise::NotPromised, None) => Verdict::Undecided,
    };
    (verdict, explanation)
}
