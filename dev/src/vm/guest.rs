//! The guest's only process of ours: mounts what programs expect, runs what was packed, tells the
//! host, and switches the machine off.

use super::payloads::{PAYLOADS, Payload};
use super::report::{Ended, Line};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};
use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The serial port after that of the kernel's messages.
const PORT: &str = "/dev/ttyS1";
/// What is longer than this is told as several lines.
const LONGEST_LINE: u64 = 1 << 16;
/// Lines of one program that are told at most.
const MOST_LINES: usize = 10_000;

/// File systems: type, place. The first four are what nothing works without.
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
];
const NEEDED: usize = 4;

/// Runs everything. The machine is off when this returns, or as good as that.
pub(super) fn run() {
    if let Err(why) = all() {
        eprintln!("guest: {why}");
    }
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("guest: cannot switch off: {error}");
    }
}

fn all() -> Result<(), String> {
    for (number, (kind, place)) in MOUNTS.iter().enumerate() {
        let mounted = mount_one(kind, place);
        if let (Err(why), true) = (mounted, number < NEEDED) {
            return Err(why);
        }
    }
    // An emulated processor takes its time in interrupts; the kernel would sample ever more rarely.
    let _ = fs::write("/proc/sys/kernel/perf_cpu_time_max_percent", "0");
    let mut host = Host::open()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    host.tell(&Line::Hello(release.trim().to_string()))?;
    for payload in PAYLOADS {
        if Path::new(&payload.place()).exists() {
            host.tell(&Line::Begin(payload.name.to_string()))?;
            let ended = payload_run(payload, &mut host)?;
            host.tell(&Line::End(ended))?;
        }
    }
    host.tell(&Line::Done)?;
    tcdrain(&host.port).map_err(|error| format!("{PORT}: {error}"))
}

fn mount_one(kind: &str, place: &str) -> Result<(), String> {
    let _ = fs::create_dir_all(place);
    let mounted = mount(kind, place, kind, MountFlags::empty(), None);
    mounted.map_err(|error| format!("{place} ({kind}): {error}"))
}

/// The way to the host.
struct Host {
    port: File,
}

impl Host {
    fn open() -> Result<Host, String> {
        let port = File::options().write(true).open(PORT);
        let port = port.map_err(|error| format!("{PORT}: {error}"))?;
        // Lines as they are.
        if let Ok(mut settings) = tcgetattr(&port) {
            settings.make_raw();
            let _ = settings.set_speed(115_200);
            let _ = tcsetattr(&port, OptionalActions::Now, &settings);
        }
        Ok(Host { port })
    }

    fn tell(&mut self, line: &Line) -> Result<(), String> {
        let plain = |c: char| if c.is_control() { '?' } else { c };
        let mut text: String = line.to_string().chars().map(plain).collect();
        text.push('\n');
        let written = self.port.write_all(text.as_bytes());
        written.map_err(|error| format!("{PORT}: {error}"))
    }
}

/// Runs one, with an end to its time, and leaves nothing of it running.
fn payload_run(payload: &Payload, host: &mut Host) -> Result<Ended, String> {
    for file in payload.files() {
        let _ = fs::remove_file(file);
    }
    let child = Command::new(payload.place())
        .args(payload.words())
        .current_dir("/tmp")
        .env_clear()
        .envs([
            ("PATH", "/programs:/targets"),
            ("HOME", "/tmp"),
            ("TMPDIR", "/tmp"),
        ])
        .envs([("FRAMEWALK_TARGETS", "/targets"), ("RUST_BACKTRACE", "0")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Ok(Ended::Not(format!("{}: {error}", payload.place()))),
    };
    let lines = read(&mut child);
    let ended = follow(payload, &mut child, &lines, host)?;
    for file in payload.files() {
        if let Ok(file_read) = File::open(file) {
            host.tell(&Line::File(file.to_string()))?;
            each_line(file_read, |text| host.tell(&Line::Data(text)).is_ok());
        }
    }
    Ok(ended)
}

/// What the program prints, as it does.
fn read(child: &mut Child) -> Receiver<Line> {
    let (sender, lines) = channel();
    let start = |stream: Option<Box<dyn Read + Send>>, kind: fn(String) -> Line| {
        let sender: Sender<Line> = sender.clone();
        thread::spawn(move || {
            if let Some(stream) = stream {
                each_line(stream, |text| sender.send(kind(text)).is_ok());
            }
        });
    };
    start(
        child.stdout.take().map(|stream| Box::new(stream) as _),
        Line::Out,
    );
    start(
        child.stderr.take().map(|stream| Box::new(stream) as _),
        Line::Err,
    );
    lines
}

fn each_line(stream: impl Read, mut see: impl FnMut(String) -> bool) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut stream)
        .take(LONGEST_LINE)
        .read_until(b'\n', &mut line)
    {
        let text = String::from_utf8_lossy(&line);
        if !see(text.trim_end_matches('\n').to_string()) {
            break;
        }
        line.clear();
    }
}

/// Tells what the program prints until it ends, or until its time is over.
fn follow(
    payload: &Payload,
    child: &mut Child,
    lines: &Receiver<Line>,
    host: &mut Host,
) -> Result<Ended, String> {
    const LOOK: Duration = Duration::from_millis(50);
    let end = Instant::now() + Duration::from_secs(payload.seconds);
    let (mut ended, mut told) = (None, 0);
    loop {
        // The rest of the output comes when the program has ended, up to the end of both streams.
        match lines.recv_timeout(LOOK) {
            Ok(line) if told < MOST_LINES => {
                host.tell(&line)?;
                told += 1;
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match ended {
                Some(ended) => return Ok(ended),
                None => thread::sleep(LOOK),
            },
        }
        if ended.is_none() {
            let status = child.try_wait();
            ended = match status.map_err(|error| format!("{}: {error}", payload.name))? {
                Some(status) => Some(how(status)),
                None if Instant::now() > end => Some(Ended::Late(payload.seconds)),
                None => None,
            };
            if ended.is_some() {
                kill_all();
            }
        }
    }
}

fn how(status: ExitStatus) -> Ended {
    match status.code() {
        Some(code) => Ended::Exit(code),
        None => Ended::Signal(status.signal().unwrap_or(0)),
    }
}

/// Ends everything but this process: what a program left behind is not the next one's to bear. Threads of
/// the kernel do not listen.
fn kill_all() {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let name = process.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.filter(|pid| *pid > 1).and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
