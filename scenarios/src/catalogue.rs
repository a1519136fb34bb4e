//! The applications and failure stories by name.

use std::fmt;
use std::time::Duration;

use bus_core::{BoxFuture, Bus, Error, ErrorKind, Result};

use crate::order_export::{self, OrderExport};
use crate::report::Report;
use crate::setting::Setting;
use crate::stories;

/// An application that can be run by its name.
#[derive(Clone, Copy, Debug)]
pub struct Application {
    /// The name, as the command takes it.
    pub name: &'static str,
    /// What it is, in one line.
    pub title: &'static str,
    /// Which kind it is.
    pub kind: Kind,
    /// The forms that it comes in.
    pub forms: &'static [Form],
    /// What it is explored on.
    pub worst_day: WorstDay,
    /// Runs it once, on any bus, and judges what came of it.
    pub run: fn(Bus, Form, Setting) -> BoxFuture<'static, Result<Report>>,
}

/// Which kind of code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An application, from a real document.
    Application,
    /// A failure story: a real delivery bug, and nothing else.
    Story,
}

impl Kind {
    /// Both kinds.
    pub const ALL: &'static [Self] = &[Self::Application, Self::Story];

    /// What a form is called: `buggy` and `fixed` of a story.
    pub const fn name_of(self, form: Form) -> &'static str {
        match (self, form) {
            (Self::Application, Form::AsWritten) => "as-written",
            (Self::Application, Form::Sound) => "sound",
            (Self::Story, Form::AsWritten) => "buggy",
            (Self::Story, Form::Sound) => "fixed",
        }
    }
}

impl Application {
    /// The form of that name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming those that there are.
    pub fn form(&self, name: &str) -> Result<Form> {
        let named = |form: &Form| self.form_name(*form) == name;
        self.forms.iter().copied().find(named).ok_or_else(|| {
            let forms = self.forms.iter().map(|form| self.form_name(*form));
            let forms = forms.collect::<Vec<_>>().join(", ");
            let message = format!("{} has no form {name:?}; it has {forms}", self.name);
            Error::new(ErrorKind::InvalidArgument, message)
        })
    }

    /// What a form of it is called.
    pub const fn form_name(&self, form: Form) -> &'static str {
        self.kind.name_of(form)
    }
}

/// On what an application is explored: a simulated cluster, and what goes wrong there.
#[derive(Clone, Copy, Debug)]
pub struct WorstDay {
    /// Options of the `sim://` URL for a form: `brokers=3`.
    pub options: fn(Form) -> &'static str,
    /// Kinds of faults, by the names that `bus explore --faults` takes; empty for all that the
    /// configuration promises to survive. With [`BEYOND`] among them, there may be more at once
    /// than that.
    pub faults: &'static [&'static str],
    /// How long the faults last; after that everything heals, and work must go on.
    pub horizon: Duration,
}

/// Among the faults of an application: several brokers may be away at a time.
pub const BEYOND: &str = "beyond";

/// All applications, sorted by name.
pub const fn catalogue() -> &'static [Application] {
    CATALOGUE
}

const CATALOGUE: &[Application] = &[
    stories::async_commit_reorder::STORY,
    stories::cancel_then_dedupe_swallow::STORY,
    stories::claim_before_effect::STORY,
    stories::commit_after_revoke::STORY,
    stories::commit_max_with_concurrency::STORY,
    stories::coop_stale_owned_partitions::STORY,
    stories::delayed_endtxn::STORY,
    stories::delivery_timeout_late_success::STORY,
    stories::dlq_publish_not_awaited::STORY,
    stories::epoch_bump_collateral_dup::STORY,
    stories::epoch_bump_splits_transaction::STORY,
    stories::hanging_transaction::STORY,
    stories::hw_truncation_loss::STORY,
    stories::inflight_retry_reorder::STORY,
    stories::latest_on_new_partition::STORY,
    ORDER_EXPORT,
    stories::outbox_sequence_gap::STORY,
    stories::prefetch_autocommit::STORY,
    stories::stale_stored_offset::STORY,
    stories::unclean_rewrite_under_reader::STORY,
    stories::unstable_offset_read::STORY,
];

const ORDER_EXPORT: Application = Application {
    name: "order-export",
    title: "Confirmed orders are exported to an external platform",
    kind: Kind::Application,
    forms: Form::ALL,
    worst_day: WorstDay { options: |_| "brokers=3", faults: &[], horizon: Duration::from_secs(10) },
    run: |bus, form, setting| {
        Box::pin(order_export::run(bus, OrderExport::in_form(form).of(&setting)))
    },
};

/// The application of that name.
pub fn find(name: &str) -> Option<&'static Application> {
    catalogue().iter().find(|application| application.name == name)
}

/// In which form an application runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// The way such systems are often written, with the delivery bug that this way has.
    AsWritten,
    /// The fixed way: holds whatever crashes.
    #[default]
    Sound,
}

impl Form {
    /// Both forms.
    pub const ALL: &'static [Self] = &[Self::AsWritten, Self::Sound];

    /// The name that applications have for it; see [`Kind::name_of`] for that of stories.
    pub const fn name(self) -> &'static str {
        Kind::Application.name_of(self)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications_and_forms_are_found_by_name() {
        assert_eq!(find("order-export").map(|app| app.name), Some("order-export"));
        assert!(find("order-exports").is_none());
        assert!(catalogue().is_sorted_by_key(|app| app.name));
        for application in catalogue() {
            for form in application.forms {
                assert_eq!(application.form(application.form_name(*form)).unwrap(), *form);
            }
        }
        let application = find("order-export").unwrap();
        let error = application.form("fixed").unwrap_err();
        assert!(error.to_string().contains("as-written, sound"), "{error}");
        assert_eq!(Kind::Story.name_of(Form::Sound), "fixed");
    }
}
