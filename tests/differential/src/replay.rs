//! Replay: a program from a file, on what there is.

use crate::backend::{OnSim, Ran};
use crate::campaign::{Pair, Verdict};
use crate::compare::Divergence;
use crate::file::ProgramFile;
use crate::outcome::Outcome;
use crate::program::Program;

/// Runs a program on the simulator and compares with what a real Kafka once made of it. Must not be
/// called inside of a runtime.
///
/// # Errors
/// The divergence.
pub fn on_sim(file: &ProgramFile, sim: OnSim) -> Result<Vec<Outcome>, Box<Divergence>> {
    Divergence::between(&file.program, Ok(file.kafka.clone()), sim.run(&file.program).0)
}

/// What came of a program file on both backends.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// How they compare.
    pub verdict: Verdict,
    /// Where the file has outcomes of Kafka and now there are others: those of the file and the
    /// new.
    pub changed: Option<Box<Divergence>>,
}

/// Runs a program on both backends.
pub async fn on_both(file: &ProgramFile, pair: &Pair) -> Replayed {
    let verdict = pair.judge(&file.program).await;
    let changed = match &verdict {
        Verdict::Agreed(outcomes) if !file.kafka.is_empty() => {
            let (now, recorded) = (Ok(outcomes.clone()), Ok(file.kafka.clone()));
            Divergence::between(&file.program, now, recorded).err()
        }
        Verdict::Agreed(_) | Verdict::Unsteady(_) | Verdict::Diverged(_) => None,
    };
    Replayed { verdict, changed }
}

/// Runs a program twice on the simulator; gives the outcomes and the hash of the trace. Must not be
/// called inside of a runtime.
///
/// # Errors
/// What differs: the outcomes, as a divergence whose two sides are the two runs, or only the trace.
pub fn twice(program: &Program, sim: OnSim) -> Result<(Vec<Outcome>, String), String> {
    let ((first, hash), (second, again)) = (sim.run(program), sim.run(program));
    let told = |ran: &Ran| ran.as_ref().err().cloned();
    if let Some(why) = told(&first).or_else(|| told(&second)) {
        return Err(format!("the simulator gave no outcomes: {why}"));
    }
    let outcomes = Divergence::between(program, first, second)
        .map_err(|divergence| format!("two runs gave two outcomes\n{divergence}"))?;
    match (hash, again) {
        (Some(hash), Some(again)) if hash == again => Ok((outcomes, hash)),
        (hash, again) => Err(format!("two runs gave two traces: {hash:?} and {again:?}")),
    }
}
