//! The emulated machine: starts it, hears it, and ends it when its time is over.

use super::kernels::Kernel;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

pub(super) const QEMU: &str = "qemu-system-x86_64";
/// What the kernel prints, and what QEMU complains about, beside the report.
pub(super) const CONSOLE: &str = "console.log";
const COMPLAINTS: &str = "qemu.log";

/// From switching on to the first word of the guest.
const BOOT: Duration = Duration::from_secs(180);
/// From switching on to switching off.
const WHOLE: Duration = Duration::from_secs(900);
/// The longest line of a report.
const LONGEST_LINE: u64 = 1 << 20;

/// Whether there is a machine; else what is missing.
pub(super) fn available() -> Result<(), String> {
    let version = Command::new(QEMU)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    match version {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{QEMU} --version: {}", output.status)),
        Err(error) => Err(format!("{QEMU}: {error} (package qemu-system-x86)")),
    }
}

/// Boots and hands over each line of the report, until the machine is switched off. `heard` says
/// whether the guest has begun.
pub(super) fn boot(
    kernel: &Kernel,
    image: &Path,
    initramfs: &Path,
    directory: &Path,
    heard: &mut dyn FnMut(&str) -> bool,
) -> Result<(), String> {
    let at = |name: &str, error| format!("{}: {error}", directory.join(name).display());
    let complaints = File::create(directory.join(COMPLAINTS));
    let complaints = complaints.map_err(|error| at(COMPLAINTS, error))?;
    // Nothing of an earlier run.
    File::create(directory.join(CONSOLE)).map_err(|error| at(CONSOLE, error))?;

    // The processors take turns: with a thread for each, QEMU lets one run into the breakpoint of another
    // that is patching the kernel, when that is over already (`Oops: int3`, one recording in a few dozen).
    const ACCEL: &str = "tcg,thread=single";
    // Dies with us, however we do.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", QEMU]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args([
        "-accel", ACCEL, "-cpu", kernel.cpu, "-smp", "2", "-m", "2048",
    ]);
    command.args(["-display", "none", "-chardev", "stdio,id=report,signal=off"]);
    command.args([
        "-serial",
        &format!("file:{CONSOLE}"),
        "-serial",
        "chardev:report",
    ]);
    command
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs);
    command.arg("-append").arg(format!(
        "console=ttyS0 quiet panic=-1 lsm=capability,bpf -- {}",
        super::GUEST
    ));
    command.current_dir(directory);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(complaints);
    let child = command.spawn();
    let mut child = child.map_err(|error| format!("setpriv: {error}"))?;

    let begin = Instant::now();
    let lines = lines(&mut child);
    let mut begun = false;
    loop {
        let limit = if begun { WHOLE } else { BOOT };
        let left = limit.saturating_sub(begin.elapsed());
        match lines.recv_timeout(left) {
            Ok(line) => begun |= heard(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                // By its id, and only then forgotten.
                let _ = child.kill();
                let _ = child.wait();
                let what = if begun {
                    "not over"
                } else {
                    "nothing of ours ran"
                };
                return Err(format!("{what} after {} s: killed", limit.as_secs()));
            }
        }
    }
    let status = child.wait().map_err(|error| format!("{QEMU}: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => {
            let said = fs::read_to_string(directory.join(COMPLAINTS)).unwrap_or_default();
            Err(format!("{QEMU}: {status}: {}", said.trim()))
        }
    }
}

/// The lines of the report. The guest waits when they are not taken.
fn lines(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = sync_channel(1000);
    let stdout = child.stdout.take();
    thread::spawn(move || {
        let mut stdout = stdout.map(BufReader::new);
        let mut line = Vec::new();
        while let Some(stdout) = &mut stdout {
            line.clear();
            match stdout.take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(1..) => {
                    let text = String::from_utf8_lossy(&line);
                    let text = text.trim_end_matches(['\n', '\r']).to_string();
                    if sender.send(text).is_err() {
                        break;
                    }
                }
                Ok(0) | Err(_) => break,
            }
        }
    });
    lines
}

/// What the kernel printed, fit for a terminal.
pub(super) fn console(directory: &Path) -> Vec<String> {
    let bytes = fs::read(directory.join(CONSOLE)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let plain = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    let lines = text.lines().map(plain);
    lines.filter(|line| !line.trim().is_empty()).collect()
}
