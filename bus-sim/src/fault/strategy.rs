//! Plans for `proptest!`: drawn as [`draw`] does, and shrunk by taking faults out.
//!
//! ```
//! use bus_core::{NewTopic, ProducerConfig, ProducerRecord};
//! use bus_sim::fault::strategy::plans;
//! use bus_sim::fault::{FaultKind, Surroundings};
//! use bus_sim::{Sim, SimConfig};
//! use proptest::prelude::*;
//!
//! let surroundings = Surroundings {
//!     topics: vec![("orders".into(), 1)],
//!     kinds: [FaultKind::LoseRequest, FaultKind::LoseResponse].into(),
//!     ..Surroundings::new(1, std::time::Duration::from_secs(5))
//! };
//! proptest!(ProptestConfig::with_cases(20), |(seed: u64, plan in plans(surroundings))| {
//!     let outcome = Sim::new(SimConfig { seed, plan, ..SimConfig::default() })?.run(async |sim| {
//!         let bus = sim.bus();
//!         bus.admin()?.create_topic(NewTopic::new("orders")).await?;
//!         let producer = bus.producer(ProducerConfig::default())?;
//!         producer.send(ProducerRecord::to("orders").value("1")).await
//!     });
//!     let sent = outcome.result?;
//!     prop_assert!(sent.is_ok(), "{sent:?}");
//! });
//! ```
//!
//! Simplified: a fault goes or stays as it is; [exploration](crate::explore) also makes its numbers
//! rounder.

use std::collections::BTreeSet;

use proptest::prelude::Rng as _;
use proptest::strategy::{NewTree, Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::{FaultId, Plan, Surroundings, draw};

/// Plans of faults that strike what there is.
pub fn plans(surroundings: Surroundings) -> Plans {
    Plans { surroundings }
}

/// What [`plans`] returns.
#[derive(Clone, Debug)]
pub struct Plans {
    surroundings: Surroundings,
}

/// A plan that was drawn, and how far it is shrunk.
#[derive(Clone, Debug)]
pub struct PlanTree {
    whole: Plan,
    gone: BTreeSet<FaultId>,
    /// The faults that are still to be taken out, the next one last.
    next: Vec<FaultId>,
    /// The one that was taken out last.
    last: Option<FaultId>,
}

impl Strategy for Plans {
    type Tree = PlanTree;
    type Value = Plan;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let seed = runner.rng().next_u64();
        Ok(PlanTree::new(draw(seed, &self.surroundings).plan))
    }
}

impl PlanTree {
    fn new(whole: Plan) -> Self {
        let next = whole.faults.iter().map(|fault| fault.id).collect();
        Self { whole, gone: BTreeSet::new(), next, last: None }
    }
}

impl ValueTree for PlanTree {
    type Value = Plan;

    fn current(&self) -> Plan {
        self.whole.without(&self.gone)
    }

    fn simplify(&mut self) -> bool {
        // Those that waited for one that is gone are gone with it.
        let left: BTreeSet<_> = self.current().faults.iter().map(|fault| fault.id).collect();
        self.next.retain(|id| left.contains(id));
        self.last = self.next.pop();
        self.gone.extend(self.last);
        self.last.is_some()
    }

    fn complicate(&mut self) -> bool {
        self.last.take().is_some_and(|id| self.gone.remove(&id))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng};

    use super::*;

    fn surroundings() -> Surroundings {
        Surroundings {
            processes: vec!["shop".to_owned()],
            topics: vec![("orders".into(), 2)],
            groups: vec!["billing".to_owned()],
            ..Surroundings::new(3, Duration::from_secs(10))
        }
    }

    #[test]
    fn only_the_faults_that_matter_are_left() {
        let config = Config { failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, rng());
        let result = runner.run(&plans(surroundings()), |plan| {
            let odd = plan.faults.iter().filter(|fault| fault.id % 2 == 1).count();
            if odd < 2 { Ok(()) } else { Err(TestCaseError::fail("two are odd")) }
        });
        let Err(TestError::Fail(_, plan)) = result else { panic!("{result:?}") };
        let ids: Vec<_> = plan.faults.iter().map(|fault| fault.id).collect();
        assert!(ids.len() == 2 && ids.iter().all(|id| id % 2 == 1), "{ids:?}");
    }

    #[test]
    fn plans_are_valid_and_end() {
        let mut runner = TestRunner::new_with_rng(Config::default(), rng());
        for _ in 0..50 {
            let mut tree = plans(surroundings()).new_tree(&mut runner).expect("nothing is refused");
            tree.current().validate(3).expect("it is valid");
            while tree.simplify() {
                tree.current().validate(3).expect("it is valid");
            }
            assert!(tree.current().faults.is_empty());
        }
    }

    fn rng() -> TestRng {
        TestRng::deterministic_rng(RngAlgorithm::ChaCha)
    }
}
