//! A group application on the simulator, recorded and judged.

mod application;

use application::Run;
use bus_check::{Durability, Environment};

#[test]
fn a_run_without_faults_holds() {
    for seed in 0..3 {
        let run = Run { seed, ..Run::default() };
        let (history, judgment) = run.judge();
        for finding in &judgment.findings {
            println!("{:?} {} {}", finding.verdict, finding.guarantee, finding.anomaly.sentence);
        }
        println!("{}", history.excerpt(60));
        for o in &judgment.outcomes {
            println!("{} {} {}", o.guarantee, o.examined, o.anomalies);
        }
        assert!(judgment.holds());
    }
    let _ = Environment { durability: Durability::Safe, ..Default::default() };
}
