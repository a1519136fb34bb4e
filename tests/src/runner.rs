//! Runs one case in one world, with the audit behind it.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use futures_util::FutureExt as _;

use crate::audit::audit;
use crate::case::Case;
use crate::cx::Cx;
use crate::failure::{Failure, FailureKind, Verdict};

/// How many entries of the history a failure shows.
const EXCERPT: usize = 60;

/// Runs the case and the audit; a failure comes with the end of the history.
///
/// The whole history goes into the folder that `BUS_TEST_HISTORIES` names, if there is one.
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
    if let Some(folder) = std::env::var_os("BUS_TEST_HISTORIES") {
        let file = format!("{}-{}.txt", cx.raw_bus().scheme(), case.name.replace("::", "-"));
        let text = cx.history().excerpt(usize::MAX);
        // Whoever looks for the file sees that it is not there.
        drop(std::fs::write(PathBuf::from(folder).join(file), text));
    }
    verdict.map_err(|mut failure| {
        failure.message = format!("{}\n{}", failure.message, cx.history().excerpt(EXCERPT));
        failure
    })
}

/// What a panic says.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
