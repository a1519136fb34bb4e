//! Shrinking: makes a program smaller as long as it diverges in the same way.
//!
//! Not proptest's: candidates are judged side by side on the real Kafka, where each costs a second;
//! programs that were read from a file are shrunk too; and each candidate must keep to the kind of
//! the divergence, so that one bug does not turn into another on the way.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};

use crate::campaign::{Pair, Verdict};
use crate::compare::Divergence;
use crate::data::Data;
use crate::program::{ConsumerStep, ProducerStep, Program, Sending, Step, TransactorStep};

/// Shrinks a divergence for at most so long.
pub async fn shrink(pair: &Pair, divergence: Divergence, time: Duration) -> Divergence {
    let until = Instant::now() + time;
    let mut smallest = divergence;
    if let Some(step) = smallest.step() {
        let mut program = smallest.program.clone();
        program.steps.truncate(step + 1);
        if let Some(smaller) = first_alike(pair, &smallest, vec![program], until).await {
            smallest = smaller;
        }
    }
    loop {
        let smaller = match fewer_steps(pair, &smallest, until).await {
            Some(smaller) => Some(smaller),
            None => first_alike(pair, &smallest, simpler(&smallest.program), until).await,
        };
        match smaller {
            Some(smaller) => smallest = smaller,
            None => return smallest,
        }
    }
}

/// Takes steps away: half of them, a quarter, and so on to single ones.
async fn fewer_steps(pair: &Pair, from: &Divergence, until: Instant) -> Option<Divergence> {
    let steps = from.program.steps.len();
    let mut size = steps / 2;
    while size > 0 {
        let starts = (0..steps).step_by(size);
        let candidates = starts.map(|start| {
            let mut program = from.program.clone();
            program.steps.drain(start..(start + size).min(steps));
            program
        });
        let candidates = candidates.filter(|program| !program.steps.is_empty()).collect();
        if let Some(smaller) = first_alike(pair, from, candidates, until).await {
            return Some(smaller);
        }
        size /= 2;
    }
    None
}

/// The first candidate that diverges in the same way.
async fn first_alike(
    pair: &Pair,
    like: &Divergence,
    candidates: Vec<Program>,
    until: Instant,
) -> Option<Divergence> {
    const SIDE_BY_SIDE: usize = 8;

    let kind = like.kind();
    let judged = stream::iter(candidates).map(|program| async move {
        if Instant::now() >= until { None } else { Some(pair.judge(&program).await) }
    });
    let mut judged = std::pin::pin!(judged.buffered(SIDE_BY_SIDE));
    while let Some(verdict) = judged.next().await {
        if let Some(Verdict::Diverged(divergence)) = verdict
            && divergence.kind() == kind
        {
            return Some(*divergence);
        }
    }
    None
}

/// Programs with as many steps and less in them.
fn simpler(program: &Program) -> Vec<Program> {
    let mut simpler = Vec::new();
    let mut with = |change: &dyn Fn(&mut Program)| {
        let mut changed = program.clone();
        change(&mut changed);
        if changed != *program {
            simpler.push(changed);
        }
    };
    for slot in program.topics.keys() {
        with(&|p| drop(p.topics.remove(slot)));
        with(&|p| drop(p.topics.insert(*slot, Default::default())));
    }
    for slot in program.producers.keys() {
        with(&|p| drop(p.producers.remove(slot)));
    }
    for slot in program.transactors.keys() {
        with(&|p| drop(p.transactors.remove(slot)));
    }
    for slot in program.consumers.keys() {
        with(&|p| drop(p.consumers.remove(slot)));
        with(&|p| {
            if let Some(spec) = p.consumers.get_mut(slot) {
                let (group, assignor) = (spec.group, spec.assignor);
                *spec = Default::default();
                (spec.group, spec.assignor) = (group, assignor);
            }
        });
    }
    for (n, step) in program.steps.iter().enumerate() {
        for step in simpler_steps(step) {
            with(&|p| p.steps[n] = step.clone());
        }
    }
    simpler
}

fn simpler_steps(step: &Step) -> Vec<Step> {
    match step {
        Step::Producer(slot, ProducerStep::Send(sending)) => simpler_sendings(sending)
            .into_iter()
            .map(|sending| Step::Producer(*slot, ProducerStep::Send(sending)))
            .collect(),
        Step::Transactor(slot, TransactorStep::Send(sending)) => simpler_sendings(sending)
            .into_iter()
            .map(|sending| Step::Transactor(*slot, TransactorStep::Send(sending)))
            .collect(),
        Step::Consumer(slot, step) => {
            simpler_questions(step).into_iter().map(|step| Step::Consumer(*slot, step)).collect()
        }
        Step::Producer(..) | Step::Transactor(..) | Step::Admin(_) => Vec::new(),
    }
}

fn simpler_sendings(sending: &Sending) -> Vec<Sending> {
    let mut simpler = Vec::new();
    if sending.records.len() > 1 {
        simpler.extend(
            without_each(&sending.records)
                .into_iter()
                .map(|records| Sending { one_by_one: sending.one_by_one, records }),
        );
    }
    for (n, record) in sending.records.iter().enumerate() {
        let mut plain = record.clone();
        plain.headers.clear();
        plain.timestamp = None;
        let mut short = record.clone();
        short.value = Data::Text("v".to_owned());
        let mut placed = record.clone();
        placed.key = Data::Null;
        placed.partition = placed.partition.or(Some(0));
        for record in [plain, short, placed] {
            let mut sending = sending.clone();
            sending.records[n] = record;
            simpler.push(sending);
        }
    }
    simpler
}

fn simpler_questions(step: &ConsumerStep) -> Vec<ConsumerStep> {
    match step {
        ConsumerStep::Assign(list) if list.len() > 1 => {
            without_each(list).into_iter().map(ConsumerStep::Assign).collect()
        }
        ConsumerStep::Commit(list) if list.len() > 1 => {
            without_each(list).into_iter().map(ConsumerStep::Commit).collect()
        }
        ConsumerStep::Store(list) if list.len() > 1 => {
            without_each(list).into_iter().map(ConsumerStep::Store).collect()
        }
        ConsumerStep::Committed(list) if list.len() > 1 => {
            without_each(list).into_iter().map(ConsumerStep::Committed).collect()
        }
        ConsumerStep::OffsetsForTimes(list) if list.len() > 1 => {
            without_each(list).into_iter().map(ConsumerStep::OffsetsForTimes).collect()
        }
        ConsumerStep::Subscribe { topics, pattern, commit_on_revoke } => {
            let plain = ConsumerStep::Subscribe {
                topics: topics.iter().chain(pattern).copied().collect(),
                pattern: Vec::new(),
                commit_on_revoke: false,
            };
            let fewer = without_each(topics).into_iter().filter(|topics| !topics.is_empty());
            let fewer = fewer.map(|topics| ConsumerStep::Subscribe {
                topics,
                pattern: pattern.clone(),
                commit_on_revoke: *commit_on_revoke,
            });
            [plain].into_iter().chain(fewer).collect()
        }
        _ => Vec::new(),
    }
}

fn without_each<T: Clone>(list: &[T]) -> Vec<Vec<T>> {
    let without = |n: usize| {
        let mut list = list.to_vec();
        list.remove(n);
        list
    };
    (0..list.len()).map(without).collect()
}
