//! The verdict: anomalies, judged by their conditions and by the ground truth.

use crate::check::{self, Anomalies, Anomaly, Promise};
use crate::environment::Environment;
use crate::guarantee::Guarantee;
use crate::history::{EntryId, History};
use crate::model::Model;
use crate::truth::{Cause, GroundTruth, NoTruth, Truth};

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

/// What the checkers say of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgment {
    /// Each guarantee, in order.
    pub outcomes: Vec<Outcome>,
    /// The anomalies, the worst first.
    pub findings: Vec<Finding>,
}

impl Judgment {
    /// Whether no guarantee is broken.
    pub fn holds(&self) -> bool {
        !self.findings.iter().any(|finding| finding.verdict.is_violation())
    }

    /// The guarantees that are broken, in order.
    pub fn broken(&self) -> Vec<Guarantee> {
        let outcomes = self.outcomes.iter();
        outcomes
            .filter(|outcome| outcome.verdict.is_some_and(Verdict::is_violation))
            .map(|outcome| outcome.guarantee)
            .collect()
    }

    /// The findings about a guarantee.
    pub fn of(&self, guarantee: Guarantee) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.guarantee == guarantee)
    }
}

/// How many anomalies of one guarantee are told apart.
pub const FINDINGS_MAX: usize = 64;

/// Judges a history by what it alone shows, as on a real Kafka.
pub fn judge(history: &History, environment: &Environment) -> Judgment {
    judge_with(history, environment, &NoTruth)
}

/// Judges a history; `truth` explains what is permitted.
pub fn judge_with(
    history: &History,
    environment: &Environment,
    truth: &dyn GroundTruth,
) -> Judgment {
    let model = Model::new(history, environment);
    let mut outcomes = Vec::with_capacity(check::ALL.len());
    let mut findings = Vec::new();
    for checker in check::ALL {
        let mut anomalies = Anomalies::keeping(FINDINGS_MAX);
        (checker.check)(&model, &mut anomalies);
        let Anomalies { examined, count, first, .. } = anomalies;
        let mut worst = None;
        for anomaly in first {
            let (verdict, explanation) = decide(&anomaly, truth);
            worst = Some(worst.map_or(verdict, |worst: Verdict| worst.min(verdict)));
            let guarantee = checker.guarantee;
            findings.push(Finding { guarantee, verdict, anomaly, explanation });
        }
        let guarantee = checker.guarantee;
        outcomes.push(Outcome { guarantee, examined, anomalies: count, verdict: worst });
    }
    findings.sort_by_key(|finding| finding.verdict);
    Judgment { outcomes, findings }
}

fn decide(anomaly: &Anomaly, truth: &dyn GroundTruth) -> (Verdict, Option<Explanation>) {
    let told = anomaly.question.as_ref().map_or(Truth::Unknown, |question| truth.why(question));
    let (explanation, is_told) = match told {
        Truth::Because(cause) => (Some(Explanation::Event(cause)), true),
        Truth::Unexplained => (None, true),
        Truth::Unknown => (anomaly.explained_by.map(Explanation::Entry), false),
    };
    let verdict = match (anomaly.promise, &explanation) {
        (Promise::Required, _) => Verdict::Forbidden,
        (Promise::Open | Promise::NotPromised, Some(_)) => Verdict::Explained,
        (Promise::Open | Promise::NotPromised, None) if is_told => Verdict::Unexplained,
        (Promise::Open | Promise::NotPromised, None) => Verdict::Undecided,
    };
    (verdict, explanation)
}
