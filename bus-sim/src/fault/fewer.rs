//! The same plan in a smaller cluster, and with fewer processes.

use super::{Fault, Messages, Party, Plan, Target, Trigger, Until};
use crate::fault::FactPattern;
use crate::node::BrokerId;

impl Plan {
    /// The plan for a cluster with so many brokers: what strikes a broker by a higher number
    /// strikes one of those that are left.
    pub(crate) fn on_brokers(&self, brokers: BrokerId) -> Self {
        let mut plan = self.clone();
        for planned in &mut plan.faults {
            trigger(&mut planned.when, brokers);
            if let Some(Until::When(end)) = &mut planned.until {
                trigger(end, brokers);
            }
            fault(&mut planned.fault, brokers);
        }
        plan
    }
}

impl Plan {
    /// The plan for so many processes of a kind, if they are numbered: what strikes `worker-3`
    /// strikes `worker-1` if there are two.
    pub(crate) fn on_processes(&self, count: usize) -> Self {
        let mut plan = self.clone();
        for planned in &mut plan.faults {
            let until = match &mut planned.until {
                Some(Until::When(end)) => Some(end),
                _ => None,
            };
            for trigger in [&mut planned.when].into_iter().chain(until) {
                match trigger {
                    Trigger::Reached { process, .. } | Trigger::Commit { process, .. } => {
                        renumber(process, count);
                    }
                    Trigger::Request { from: Some(Party::Process(name)), .. } => {
                        renumber(name, count);
                    }
                    _ => {}
                }
            }
            match &mut planned.fault {
                Fault::CutProcess(name, _)
                | Fault::ResetConnections(name, _)
                | Fault::CrashProcess(name)
                | Fault::PauseProcess(name)
                | Fault::StallProcess(name)
                | Fault::RefuseCommit(name, _)
                | Fault::LoseCommit(name, _)
                | Fault::LoseCommitAnswer(name, _)
                | Fault::DelayCommit(name, _, _)
                | Fault::LoseRequest(Messages { from: Some(Party::Process(name)), .. })
                | Fault::LoseResponse(Messages { from: Some(Party::Process(name)), .. })
                | Fault::DelayRequest(Messages { from: Some(Party::Process(name)), .. }, _)
                | Fault::DelayResponse(Messages { from: Some(Party::Process(name)), .. }, _) => {
                    renumber(name, count);
                }
                _ => {}
            }
        }
        plan
    }
}

/// Gives a process another number if there are only so many; those without a number keep their
/// names.
fn renumber(name: &mut String, count: usize) {
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    if let Ok(number) = name[kind..].parse::<usize>()
        && number > count
        && count > 0
    {
        name.truncate(kind);
        name.push_str(&((number - 1) % count + 1).to_string());
    }
}

const fn lower(id: &mut BrokerId, brokers: BrokerId) {
    if *id > brokers {
        *id = (*id - 1) % brokers + 1;
    }
}

fn trigger(trigger: &mut Trigger, brokers: BrokerId) {
    match trigger {
        Trigger::Request { from, to, .. } => parties(from, to, brokers),
        Trigger::Fact { is: FactPattern::InSync(_, _, replicas), .. } => {
            replicas.iter_mut().for_each(|id| lower(id, brokers));
            replicas.sort_unstable();
            replicas.dedup();
        }
        Trigger::At(_)
        | Trigger::Fact { .. }
        | Trigger::After { .. }
        | Trigger::Reached { .. }
        | Trigger::Commit { .. } => {}
    }
}

fn parties(from: &mut Option<Party>, to: &mut Option<Party>, brokers: BrokerId) {
    for party in [from, to].into_iter().flatten() {
        if let Party::Broker(id) = party {
            lower(id, brokers);
        }
    }
}

fn fault(fault: &mut Fault, brokers: BrokerId) {
    let target = |target: &mut Target| {
        if let Target::Broker(id) = target {
            lower(id, brokers);
        }
    };
    match fault {
        Fault::CrashBroker(on)
        | Fault::LosePower(on)
        | Fault::ShutDownBroker(on)
        | Fault::FreezeBroker(on)
        | Fault::IsolateBroker(on)
        | Fault::CutFromController(on)
        | Fault::CutProcess(_, on)
        | Fault::ResetConnections(_, on) => target(on),
        Fault::CutBrokers(a, b) | Fault::CutOneWay(a, b) => {
            target(a);
            target(b);
        }
        Fault::LoseRequest(messages)
        | Fault::LoseResponse(messages)
        | Fault::DelayRequest(messages, _)
        | Fault::DelayResponse(messages, _) => {
            let Messages { from, to, .. } = messages;
            parties(from, to, brokers);
        }
        Fault::CrashController
        | Fault::ElectPreferred
        | Fault::CrashProcess(_)
        | Fault::PauseProcess(_)
        | Fault::StallProcess(_)
        | Fault::RefuseCommit(..)
        | Fault::LoseCommit(..)
        | Fault::LoseCommitAnswer(..)
        | Fault::DelayCommit(..) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_are_gone_are_replaced_by_their_number() {
        let text = r#"(faults: [
            (id: 1, when: Reached(process: "worker-3", point: "here"),
             fault: CrashProcess("worker-3")),
            (id: 2, when: At("1s"), fault: PauseProcess("shop")),
            (id: 3, when: Commit(process: "worker-3", database: "shop"),
             fault: LoseCommit("worker-3", "shop")),
        ])"#;
        let plan: Plan = ron::from_str(text).unwrap();
        assert_eq!(plan.on_processes(3), plan);
        let text = text.replace("worker-3", "worker-1");
        assert_eq!(plan.on_processes(2), ron::from_str(&text).unwrap());
        assert_eq!(plan.on_processes(0), plan);
    }

    #[test]
    fn brokers_that_are_gone_are_replaced_everywhere() {
        let text = r#"(faults: [
            (id: 1, when: Fact(is: InSync("t", 0, [2, 3])), fault: CrashBroker(Broker(3))),
            (id: 2, when: Request(api: Fetch, is: Sent, from: Some(Broker(3))),
             fault: LoseRequest((api: Fetch, to: Some(Broker(2)))),
             until: Some(When(Request(api: Fetch, is: Sent, to: Some(Broker(2)))))),
            (id: 3, when: At("1s"), fault: CutBrokers(Broker(1), Broker(3))),
            (id: 4, when: At("1s"), fault: FreezeBroker(Leader("t", 0))),
        ])"#;
        let plan: Plan = ron::from_str(text).unwrap();
        assert!(plan.validate(3).is_ok() && plan.validate(1).is_err());
        assert_eq!(plan.on_brokers(3), plan);
        let one = plan.on_brokers(1);
        assert!(one.validate(1).is_ok(), "{one:?}");
        assert_eq!(one.faults[0].fault, Fault::CrashBroker(Target::Broker(1)));
        assert_eq!(one.faults[3], plan.faults[3]);
        assert!(plan.on_brokers(2).validate(2).is_ok());
    }
}
