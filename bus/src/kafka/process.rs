//! Process: a broker's process, known by its id across commands.
//!
//! An id alone is no proof: after a broker's death the system may give its number to any other
//! program. So a process counts as ours only while its command line names the broker's own
//! `server.properties`.

use std::{
    fs, io,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How often, and after how long, a process is looked at again that has no arguments: for a moment
/// after it began, and again while it ends, they can't be read.
const SETTLE_TRIES: u32 = 100;
const SETTLE_INTERVAL: Duration = Duration::from_millis(1);

/// What a broker's process does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ProcessState {
    /// It runs, or could.
    Running,
    /// It was stopped by `SIGSTOP` and still has all it had.
    Frozen,
    /// There is no such process any more, or the number belongs to another program.
    Ended,
}

/// Looks at the process `pid`, which is ours while `mark` is one of its arguments.
pub(super) fn state(pid: u32, mark: &Path) -> ProcessState {
    let has_proc = Path::new("/proc/self/stat").exists();
    let look = || if has_proc { look(pid) } else { ask_ps(pid) };
    let mut found = look();
    for _ in 0..SETTLE_TRIES {
        match &found {
            Some((state, arguments)) if *state != 'Z' && arguments.is_empty() => {
                thread::sleep(SETTLE_INTERVAL);
                found = look();
            }
            _ => break,
        }
    }
    match found {
        Some((_, arguments)) if !arguments.iter().any(|a| Path::new(a) == mark) => {
            ProcessState::Ended
        }
        Some(('T' | 't', _)) => ProcessState::Frozen,
        Some(('Z' | 'X', _)) | None => ProcessState::Ended,
        Some(_) => ProcessState::Running,
    }
}

/// Sends `signal` to the process `pid`, if it still is ours; says whether it was.
pub(super) fn send(pid: u32, mark: &Path, signal: Signal) -> io::Result<bool> {
    if state(pid, mark) == ProcessState::Ended {
        return Ok(false);
    }
    let id = i32::try_from(pid).map_err(io::Error::other)?;
    match kill(Pid::from_raw(id), signal) {
        Ok(()) => Ok(true),
        Err(nix::Error::ESRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the process `pid` ended; says whether it did before the `deadline`.
pub(super) fn wait_end(pid: u32, mark: &Path, deadline: Instant) -> bool {
    while state(pid, mark) != ProcessState::Ended {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Reads state and arguments of a process from `/proc`.
fn look(pid: u32) -> Option<(char, Vec<String>)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the state may itself have parentheses; the last one closes it.
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = arguments.split(|byte| *byte == 0).filter(|argument| !argument.is_empty());
    Some((state, arguments.map(|a| String::from_utf8_lossy(a).into_owned()).collect()))
}

/// Asks `ps` for state and arguments of a process, where there is no `/proc`.
fn ask_ps(pid: u32) -> Option<(char, Vec<String>)> {
    let output = Command::new("ps")
        .args(["-ww", "-o", "state=,command=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let state = line.chars().next()?;
    // The path is the last argument; `ps` doesn't say where an argument with spaces begins.
    let starts = line.match_indices('/').map(|(at, _)| line[at..].to_owned());
    Some((state, starts.collect()))
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_process_is_ours_only_with_the_mark_among_its_arguments() {
        let mark = Path::new("/no/such/file/of/a/bus/test");
        let mut child = Command::new("sh")
            .args(["-c", "read line", "sh"])
            .arg(mark)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        let other = Path::new("/another");
        assert_eq!(state(pid, mark), ProcessState::Running);
        assert_eq!(state(pid, other), ProcessState::Ended);
        assert!(!send(pid, other, Signal::SIGKILL).unwrap());

        assert!(send(pid, mark, Signal::SIGSTOP).unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        while state(pid, mark) != ProcessState::Frozen {
            assert!(Instant::now() < deadline, "the process was not stopped");
            thread::yield_now();
        }
        assert!(send(pid, mark, Signal::SIGKILL).unwrap());
        // Killed but not yet waited for, it is a zombie: that counts as ended.
        assert!(wait_end(pid, mark, deadline));
        child.wait().unwrap();
        assert!(!send(pid, mark, Signal::SIGKILL).unwrap());
    }

    #[test]
    fn ps_tells_the_same() {
        let pid = std::process::id();
        if let Some((_, paths)) = ask_ps(pid) {
            let program = std::env::args().next().unwrap();
            assert!(paths.iter().any(|path| path.contains(&program)), "{paths:?}");
        }
    }
}
