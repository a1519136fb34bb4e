//! Which worst days a command is about: the arguments that `bus explore` and `bus traces` share.

use std::num::NonZeroUsize;
use std::ops::Range;

use bus::explore::WorstDays;
use bus_sim::fault::Envelope;
use clap::Args;
use scenarios::{Application, Form};

use super::Failure;

/// An application, seeds, and what goes wrong.
#[derive(Args, Debug)]
pub(super) struct Days {
    /// The name of the application or failure story; `bus list` lists them
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// The way it is written: `as-written` or `sound`; of a story `buggy` or `fixed`. The last of
    /// these
    #[arg(long, value_name = "FORM")]
    pub(super) form: Option<String>,
    /// Which seeds: from A up to, and not including, B
    #[arg(long, value_name = "A..B", default_value = "0..1000", value_parser = seeds)]
    pub(super) seeds: Range<u64>,
    /// How many runs at a time; as many as there are cores
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<NonZeroUsize>,
    /// Which faults: their kinds with commas between them, `all`, or `none`; those of the
    /// application
    #[arg(long, value_name = "KINDS")]
    pub(super) faults: Option<String>,
    /// More faults than the configuration promises to survive
    #[arg(long)]
    pub(super) beyond: bool,
    /// Options of the world, such as `brokers=1&linger.ms=0`; they win over the application's
    #[arg(long, value_name = "OPTIONS", default_value = "")]
    pub(super) sim: String,
}

impl Days {
    /// The application and the form of it.
    pub(super) fn find(&self) -> Result<(&'static Application, Form), Failure> {
        find(&self.name, self.form.as_deref())
    }

    /// The days themselves.
    pub(super) fn worst_days(&self) -> Result<WorstDays, Failure> {
        let (application, form) = self.find()?;
        let envelope = if self.beyond { Envelope::Beyond } else { Envelope::Tolerated };
        let days = WorstDays::new(application, form, &self.sim)?;
        Ok(days.with_faults(self.faults.as_deref(), envelope)?)
    }

    /// The arguments that say the same to another process, of these seeds.
    pub(super) fn to_arguments(&self, seeds: &Range<u64>) -> Vec<String> {
        let seeds = format!("--seeds={}..{}", seeds.start, seeds.end);
        let mut arguments = vec![self.name.clone(), seeds, format!("--sim={}", self.sim)];
        arguments.extend(self.jobs.iter().map(|jobs| format!("--jobs={jobs}")));
        arguments.extend(self.form.iter().map(|form| format!("--form={form}")));
        arguments.extend(self.faults.iter().map(|faults| format!("--faults={faults}")));
        arguments.extend(self.beyond.then(|| "--beyond".to_owned()));
        arguments
    }
}

/// An application and a form of it, by their names.
pub(super) fn find(
    name: &str,
    form: Option<&str>,
) -> Result<(&'static Application, Form), Failure> {
    let application = scenarios::find(name).ok_or_else(|| {
        let message = format!("there is no application or failure story {name:?}");
        Failure::new(message, "`bus list` lists them")
    })?;
    let Some(form) = form else { return Ok((application, Form::Sound)) };
    let form = application.form(form).map_err(|error| {
        let forms = application.forms.iter().map(|form| application.form_name(*form));
        let forms = forms.collect::<Vec<_>>().join(" or --form ");
        Failure::new(error, format!("write --form {forms}"))
    })?;
    Ok((application, form))
}

/// Reads `A..B`.
fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{text:?} is not of the form A..B, such as 0..1000");
    let (begin, end) = text.split_once("..").ok_or_else(wrong)?;
    let begin = begin.parse::<u64>().map_err(|_| wrong())?;
    let end = end.parse::<u64>().map_err(|_| wrong())?;
    if begin >= end {
        return Err(format!("there is no seed in {text:?}: the second number must be greater"));
    }
    Ok(begin..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_seeds() {
        assert_eq!(seeds("3..17"), Ok(3..17));
        for wrong in ["", "3", "3..", "..3", "3..3", "4..3", "a..b", "-1..3"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }
}
