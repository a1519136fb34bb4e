//! Smaller: less work for the application, and a cluster with fewer brokers.

use std::time::Duration;

use super::super::case::Case;
use super::Shrinker;
use crate::fault::{Plan, Trigger};
use crate::time::SimTime;

impl<F: FnMut(u32)> Shrinker<'_, F> {
    /// Lowers each size that the application asked for, as far as that goes: to the least, then by
    /// halves, and by one last.
    pub(super) fn smaller_workload(&mut self) {
        for size in self.before.sizes.clone() {
            let mut value = self.best.sizes.get(&size.name).copied().unwrap_or(size.was);
            let mut step = value.saturating_sub(size.least);
            while step > 0 {
                if self.lower(&size.name, value, value - step) {
                    value -= step;
                    step = step.min(value - size.least);
                } else {
                    step /= 2;
                }
            }
        }
    }

    /// Lowers a size. What struck the 20th of 30 orders may have to strike the second of three; and
    /// if the size is how many processes there are, what struck the third one another.
    fn lower(&mut self, name: &str, from: usize, to: usize) -> bool {
        let mut case = self.best.clone();
        case.sizes.insert(name.to_owned(), to);
        let mut plans = vec![case.plan.clone()];
        for plan in [earlier(&case.plan, from, to), case.plan.on_processes(to)] {
            if !plans.contains(&plan) {
                plans.push(plan);
            }
        }
        plans.into_iter().any(|plan| self.attempt(Case { plan, ..case.clone() }))
    }

    /// Takes brokers away; topics have fewer replicas then. Faults of brokers that are gone strike
    /// others. Where that makes a fault mean nothing, it is taken out next.
    pub(super) fn smaller_cluster(&mut self) {
        let brokers = self.best.brokers.unwrap_or(self.before.brokers);
        let _found = (1..brokers).any(|fewer| {
            let plan = self.best.plan.on_brokers(fewer);
            self.attempt(Case { brokers: Some(fewer), plan, ..self.best.clone() })
        });
    }
}

/// The plan with its triggers earlier, in proportion.
fn earlier(plan: &Plan, from: usize, to: usize) -> Plan {
    let (from, to) = (u64::try_from(from).unwrap_or(u64::MAX), u64::try_from(to).unwrap_or(0));
    let scale = |number: u64| {
        let scaled = u128::from(number) * u128::from(to) / u128::from(from.max(1));
        u64::try_from(scaled).unwrap_or(number)
    };
    let mut plan = plan.clone();
    for planned in &mut plan.faults {
        if let Trigger::At(at) = &mut planned.when {
            let millis = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            *at = SimTime::ZERO + Duration::from_millis(scale(millis));
        }
        if let Some(nth) = planned.when.count_mut() {
            *nth = u32::try_from(scale(u64::from(*nth))).unwrap_or(*nth).max(1);
        }
    }
    plan
}
