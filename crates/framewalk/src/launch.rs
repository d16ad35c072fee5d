//! Starts the command to record, and holds it back until the recorder is ready.
//!
//! The child exists (so that events can be armed on its pid) but waits before its exec, so that
//! recording begins with the very first instruction of the command.

// The one unsafe call is `pre_exec`: its closure runs between fork and exec, where only
// async-signal-safe calls are allowed.
#![allow(unsafe_code)]

mod filter;

pub use filter::HANDED_OVER;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the gate is opened: the byte that the child reads.
const PLAINLY: u8 = 1;
const WITH_FILTER: u8 = 2;

/// A child that waits before its exec. Dropping it ends the child without any exec.
#[derive(Debug)]
pub struct Waiting {
    pid: u32,
    gate: Option<File>,
    told: File,
    spawn: Option<JoinHandle<io::Result<Child>>>,
}

/// Forks a child that will become `command` (program and arguments; the program is looked up in
/// PATH) once it is released.
pub fn hold(command: &[OsString]) -> io::Result<Waiting> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let (pid_reader, pid_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let (gate_reader, gate_writer) = pipe_with(PipeFlags::CLOEXEC)?;

    let mut child = Command::new(program);
    child.args(arguments);
    let gate_writer_number = gate_writer.as_raw_fd();
    let wait_for_release = move || announce_and_wait(&pid_writer, &gate_reader, gate_writer_number);
    // SAFETY: the closure makes system calls only (write, close, read) and allocates nothing.
    unsafe { child.pre_exec(wait_for_release) };
    // `spawn` returns after the exec, that is after the release: it has to wait on a thread of its own.
    let spawn = std::thread::Builder::new()
        .name("launch".into())
        .spawn(move || child.spawn())?;

    let mut told = File::from(pid_reader);
    let mut pid = [0; 4];
    match told.read_exact(&mut pid) {
        Ok(()) => {
            let pid = u32::from_ne_bytes(pid);
            Ok(Waiting {
                pid,
                gate: Some(File::from(gate_writer)),
                told,
                spawn: Some(spawn),
            })
        }
        // The pipe ended without a pid: there was no fork, and `spawn` knows why.
        Err(ended) => Err(join(spawn).err().unwrap_or(ended)),
    }
}

/// Runs in the child, between fork and exec.
fn announce_and_wait(
    pid_writer: &OwnedFd,
    gate_reader: &OwnedFd,
    gate_writer: i32,
) -> io::Result<()> {
    // The child's own copy of the writing end would keep the gate open when the recorder dies.
    // SAFETY: the number is that of the recorder's descriptor at the fork; in this process, which
    // is a copy that will only ever exec or exit, nothing uses it afterwards.
    unsafe { rustix::io::close(gate_writer) };
    let pid = getpid().as_raw_nonzero().get() as u32;
    // SANITY: a write of 4 bytes to an empty pipe is never cut short.
    write(pid_writer, &pid.to_ne_bytes())?;
    let mut byte = [0];
    loop {
        match read(gate_reader, &mut byte) {
            Ok(0) => return Err(Errno::CANCELED.into()),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    if byte == [WITH_FILTER] {
        let failed = filter::install().err();
        let errno = failed.and_then(|error| error.raw_os_error()).unwrap_or(0);
        write(pid_writer, &errno.to_ne_bytes())?;
    }
    Ok(())
}

fn join(spawn: JoinHandle<io::Result<Child>>) -> io::Result<Child> {
    spawn
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the launching thread ended")))
}

impl Waiting {
    /// The child's process id, which the exec does not change.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets the child exec; an error is that of the exec (no such file, permission denied).
    pub fn release(self) -> io::Result<Running> {
        self.open(PLAINLY).map(|(running, _)| running)
    }

    /// The same, and what the child announces (docs/abi.md) goes to its tracer: it and all that it starts
    /// run under a seccomp filter for this. The second part says why that could not be, if so.
    pub fn release_to_tracer(self) -> io::Result<(Running, Option<io::Error>)> {
        self.open(WITH_FILTER)
    }

    fn open(mut self, how: u8) -> io::Result<(Running, Option<io::Error>)> {
        let (Some(mut gate), Some(spawn)) = (self.gate.take(), self.spawn.take()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let opened = gate.write_all(&[how]);
        drop(gate);
        let mut errno = [0; 4];
        // Without an answer the child has ended, and the exec's error is the one to tell.
        let answered = how == WITH_FILTER && self.told.read_exact(&mut errno).is_ok();
        let child = join(spawn)?;
        opened?;
        let errno = Some(i32::from_ne_bytes(errno)).filter(|&errno| answered && errno != 0);
        Ok((Running { child }, errno.map(io::Error::from_raw_os_error)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.gate = None;
        if let Some(spawn) = self.spawn.take() {
            let _ = join(spawn);
        }
    }
}

/// The command, running or ended.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Asks the command to end (SIGTERM). Of no effect when it has ended.
    pub fn terminate(&mut self) {
        if self.status().is_none() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }

    /// Its exit status as by [`Running::status`], once it has ended or the time is over.
    pub fn wait(&mut self, timeout: Duration) -> Option<Option<ExitStatus>> {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty());
        if let (None, Ok(pidfd), Ok(timeout)) = (self.status(), pidfd, timeout.try_into()) {
            // Interrupted or not: what counts is what `status` says then.
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
        }
        self.status()
    }

    /// Its exit status, if it has ended. `Some(None)`: somebody else has collected it.
    ///
    /// Only to be asked after the recording: an engine that traces the command needs its events.
    pub fn status(&mut self) -> Option<Option<ExitStatus>> {
        match self.child.try_wait() {
            Ok(status) => status.map(Some),
            Err(_) => Some(None),
        }
    }
}

/// The status in words: `exited with status 1`, `was killed by signal 11`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn command(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn wait(mut running: Running) -> ExitStatus {
        running.wait(Duration::from_secs(100)).unwrap().unwrap()
    }

    fn executable(pid: u32) -> std::path::PathBuf {
        std::fs::read_link(format!("/proc/{pid}/exe")).unwrap()
    }

    #[test]
    fn the_child_waits_before_its_exec_and_keeps_its_pid() {
        let waiting = hold(&command(&["sleep", "1000"])).unwrap();
        let pid = waiting.pid();
        assert_eq!(
            executable(pid),
            executable(std::process::id()),
            "still this program"
        );
        let running = waiting.release().unwrap();
        assert_eq!(running.child.id(), pid);
        assert_ne!(
            executable(pid),
            executable(std::process::id()),
            "now the command"
        );
        kill_process(Pid::from_child(&running.child), Signal::KILL).unwrap();
        assert_eq!(describe(wait(running)), "was killed by signal 9");
    }

    #[test]
    fn waiting_has_an_end() {
        let mut running = hold(&command(&["sleep", "1000"]))
            .unwrap()
            .release()
            .unwrap();
        assert!(running.wait(Duration::from_millis(1)).is_none());
        running.terminate();
        assert_eq!(describe(wait(running)), "was killed by signal 15");
    }

    #[test]
    fn the_exit_status_arrives() {
        let running = hold(&command(&["sh", "-c", "exit 3"]))
            .unwrap()
            .release()
            .unwrap();
        assert_eq!(describe(wait(running)), "exited with status 3");
    }

    #[test]
    fn a_filter_is_there_when_it_was_asked_for_and_lets_other_calls_pass() {
        let script = "cat /proc/self/status | cat";
        let output = std::env::temp_dir().join(format!("framewalk-filter-{}", std::process::id()));
        let mut seen = Vec::new();
        for filter in [false, true] {
            let script = format!("({script}) > {}", output.display());
            let waiting = hold(&command(&["sh", "-c", &script])).unwrap();
            let running = match filter {
                true => waiting.release_to_tracer().map(|(running, failed)| {
                    assert!(failed.is_none(), "{failed:?}");
                    running
                }),
                false => waiting.release(),
            };
            assert_eq!(describe(wait(running.unwrap())), "exited with status 0");
            let status = std::fs::read_to_string(&output).unwrap();
            std::fs::remove_file(&output).unwrap();
            seen.push(status.contains("Seccomp:\t2"));
        }
        // The tests themselves may run under a filter.
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert_eq!(seen, [own.contains("Seccomp:\t2"), true]);
    }

    #[test]
    fn a_command_that_does_not_exist_is_an_error_at_release() {
        let waiting = hold(&command(&["/nonexistent/command"])).unwrap();
        assert_eq!(
            waiting.release().unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let waiting = hold(&command(&["/nonexistent/command"])).unwrap();
        assert_eq!(
            waiting.release_to_tracer().unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn dropping_it_ends_the_child_without_exec() {
        let file = std::env::temp_dir().join(format!("framewalk-launch-{}", std::process::id()));
        let waiting = hold(&command(&["touch", file.to_str().unwrap()])).unwrap();
        let pid = waiting.pid();
        drop(waiting);
        assert!(!file.exists());
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "and it was collected"
        );
    }
}
