//! Runs one case in one world, with the audit behind it.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

use crate::audit::audit;
use crate::case::Case;
use crate::cx::Cx;
use crate::failure::{Failure, FailureKind, Verdict};

/// Runs the case and the audit; a failure comes with the end of the history.
///
/// # Errors
/// Why the case does not hold.
pub async fn run(case: &Case, cx: &Cx) -> Verdict {
    let work = async {
        (case.run)(cx.clone()).await?;
        audit(cx).await
    };
    let verdict = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        Err(Failure::new(FailureKind::Crash, format!("panic: {}", panic_message(&*panic))))
    });
    verdict.map_err(|mut failure| {
        failure.message = format!("{}\n{}", failure.message, cx.history().excerpt());
        failure
    })
}

/// What a panic says.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
