//! The applications by name.

use std::fmt;
use std::str::FromStr;

use bus_core::{BoxFuture, Bus, Error, ErrorKind, Result};

use crate::order_export;
use crate::report::Report;

/// An application that can be run by its name.
#[derive(Clone, Copy, Debug)]
pub struct Application {
    /// The name, as the command takes it.
    pub name: &'static str,
    /// What it is, in one line.
    pub title: &'static str,
    /// The forms that it comes in.
    pub forms: &'static [Form],
    /// Runs it once, on any bus, and judges what came of it.
    pub run: fn(Bus, Form) -> BoxFuture<'static, Result<Report>>,
}

/// All applications, sorted by name.
pub const fn catalogue() -> &'static [Application] {
    &[Application {
        name: "order-export",
        title: "Confirmed orders are exported to an external platform",
        forms: Form::ALL,
        run: |bus, form| Box::pin(order_export::run(bus, order_export::OrderExport::in_form(form))),
    }]
}

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

    /// The name, as the command takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AsWritten => "as-written",
            Self::Sound => "sound",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Form {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|form| form.name() == text).ok_or_else(|| {
            let forms = Self::ALL.iter().map(|form| form.name()).collect::<Vec<_>>().join(", ");
            Error::new(
                ErrorKind::InvalidArgument,
                format!("there is no form {text:?}; there are {forms}"),
            )
        })
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
        for form in Form::ALL {
            assert_eq!(form.name().parse::<Form>().unwrap(), *form);
        }
        let error = "fixed".parse::<Form>().unwrap_err();
        assert!(error.to_string().contains("as-written, sound"), "{error}");
    }
}
