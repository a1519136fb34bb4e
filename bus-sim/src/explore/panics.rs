//! Panics of an application: caught, kept with their place, and not printed by the tool.
//!
//! tokio catches the panic of a spawned task and would let it go unnoticed; the hook sees all.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    /// The panics on this thread since it began to catch them; none while it does not.
    static CAUGHT: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs `run` and returns what it returned, and the panics on this thread meanwhile, each as
/// `message, at file:line`.
pub(super) fn catch<T>(run: impl FnOnce() -> T) -> (Option<T>, Vec<String>) {
    install_hook();
    let outer = CAUGHT.with(|caught| caught.replace(Some(Vec::new())));
    let output = panic::catch_unwind(AssertUnwindSafe(run)).ok();
    let caught = CAUGHT.with(|caught| caught.replace(outer));
    (output, caught.unwrap_or_default())
}

fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !note(info) {
                before(info);
            }
        }));
    });
}

/// Notes a panic if this thread catches them.
fn note(info: &PanicHookInfo<'_>) -> bool {
    CAUGHT.with(|caught| {
        let Ok(mut caught) = caught.try_borrow_mut() else { return false };
        let Some(list) = caught.as_mut() else { return false };
        let message = info.payload_as_str().unwrap_or("a panic without a message");
        list.push(match info.location() {
            Some(place) => format!("{message}, at {}:{}", place.file(), place.line()),
            None => message.to_owned(),
        });
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_with_its_message_and_place() {
        let (output, panics) = catch(|| panic!("no stock"));
        assert_eq!(output, None::<()>);
        assert_eq!(panics.len(), 1);
        assert!(panics[0].starts_with("no stock, at ") && panics[0].contains("panics.rs:"));
    }

    #[test]
    fn what_does_not_panic_returns() {
        assert_eq!(catch(|| 7), (Some(7), Vec::new()));
    }
}
