//! Commits at databases outside of the bus: what faults of the plan make of them.
//!
//! Simplified: the database itself is no part of the world. Who stands for it does what it is told,
//! [`CommitFate`] by [`CommitFate`].

use std::collections::BTreeSet;

use crate::fault::{CommitFate, Fault, FaultReport, Planned};

use super::{ProcessState, World};

/// What is known of commits, and what is to become of the next ones.
#[derive(Debug, Default)]
pub(super) struct Commits {
    rules: Vec<CommitRule>,
    /// Who has committed where: process and database.
    seen: BTreeSet<(String, String)>,
}

/// What becomes of the commits of a process at a database.
#[derive(Debug)]
struct CommitRule {
    process: String,
    database: String,
    fate: CommitFate,
    /// Its fault, by its place in the plan.
    fault: usize,
    is_once: bool,
}

impl Commits {
    /// Lays down what a fault makes of the next commit, or of all until it ends.
    pub(super) fn lay_down(&mut self, fault: usize, planned: &Planned) {
        let (process, database, fate) = match &planned.fault {
            Fault::RefuseCommit(process, database) => (process, database, CommitFate::Refused),
            Fault::LoseCommit(process, database) => (process, database, CommitFate::Lost),
            Fault::LoseCommitAnswer(process, database) => {
                (process, database, CommitFate::AnswerLost)
            }
            Fault::DelayCommit(process, database, by) => (process, database, CommitFate::Late(*by)),
            _ => return,
        };
        let (process, database) = (process.clone(), database.clone());
        let is_once = planned.until.is_none();
        self.rules.push(CommitRule { process, database, fate, fault, is_once });
    }

    /// Takes the rules of a fault away; or all.
    pub(super) fn remove_rules(&mut self, fault: Option<usize>) {
        self.rules.retain(|rule| fault.is_some_and(|fault| rule.fault != fault));
    }

    /// What comes of a commit, by which fault, and whether that is over with it.
    fn decide(&mut self, name: &str, at: &str) -> Option<(CommitFate, usize, bool)> {
        let is_it = |rule: &CommitRule| rule.process == name && rule.database == at;
        let place = self.rules.iter().position(is_it)?;
        let CommitRule { fate, fault, is_once, .. } = self.rules[place];
        if is_once {
            self.rules.remove(place);
        }
        Some((fate, fault, is_once))
    }

    /// Why a fault made nothing of any commit, if its plan has a wrong name.
    pub(super) fn explain(&self, planned: &Planned, report: &mut FaultReport) {
        let Some((process, database)) = planned.fault.commits_of() else { return };
        let Some(struck) = report.struck.as_mut().filter(|struck| !struck.has_changed) else {
            return;
        };
        let mut known = self.seen.iter().filter(|(name, _)| name == process).peekable();
        if struck.on.starts_with("nobody") || known.clone().any(|(_, at)| at == database) {
            return;
        }
        let at = match known.peek() {
            None => "nowhere".to_owned(),
            Some(_) => known.map(|(_, at)| format!("{at:?}")).collect::<Vec<_>>().join(", "),
        };
        struck.on = format!("nobody: {process} does not commit at {database:?}, but {at}");
    }
}

impl World {
    /// A process commits at a database. Returns what comes of that.
    pub(crate) fn commits(&mut self, process: &str, database: &str) -> CommitFate {
        let fate = self.decide_commit(process, database);
        if fate != CommitFate::Ordinary {
            let line = format!("{process} commits at {database}: {fate}");
            self.trace.add(self.now, &line, || line.clone());
        }
        self.record_commit(process, database, fate);
        fate
    }

    fn decide_commit(&mut self, process: &str, database: &str) -> CommitFate {
        let Some(director) = &mut self.director else { return CommitFate::Ordinary };
        self.commits.seen.insert((process.to_owned(), database.to_owned()));
        director.commits(process, database);
        self.strike_due();
        let id = self.process_ids.get(process);
        if id.is_some_and(|id| self.processes[*id].state == ProcessState::Crashed) {
            return CommitFate::Crashed;
        }
        let Some((fate, fault, is_over)) = self.commits.decide(process, database) else {
            return CommitFate::Ordinary;
        };
        if let Some(director) = &mut self.director {
            director.changed(fault);
            if is_over {
                director.end(fault, self.now);
            }
        }
        fate
    }
}
