//! `framewalk record`.

use super::summary::{self, Summary};
use crate::args;
use crate::engines::{Counts, Engine, Kind, Mode, Settings, Target, Unavailable};
use crate::launch::{self, Running, Waiting};
use crate::output::file::OutputFile;
use crate::output::{self, Format, View};
use crate::processes::Objects;
use crate::profile::Profile;
use crate::sample::{Frame, Place, Sample};
use crate::symbols::{self, PerfMaps, Symbols};
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How long one wait for samples may be: the progress line and the end of the time are looked at as often.
const WAIT: Duration = Duration::from_millis(100);

/// How long a command may take to end after SIGTERM, before it is said to run on.
const GRACE: Duration = Duration::from_secs(1);

/// Opens an engine, as [`crate::engines::open`] does.
pub type Open<'a> =
    dyn FnMut(Kind, Mode, &Target, Settings) -> Result<Box<dyn Engine>, Unavailable> + 'a;

/// Records, looks names up, writes the profile and says in one line what came of it.
pub fn run(args: &args::Record, open: &mut Open) -> anyhow::Result<()> {
    // Everything that can be wrong with the request is found before anything runs.
    let format = Format::of(&args.output).map_err(anyhow::Error::msg)?;
    let output = OutputFile::create(&args.output)?;
    let stats = args.stats.as_deref().map(OutputFile::create).transpose()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The first one ends the recording, a second one ends the program.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }

    let (target, waiting) = target(args)?;
    let engine = choose(args, &target, open)?;
    // Now, while the processes are there to be asked for their names.
    let title = title(args);
    let progress = progress();
    let mut objects = Objects::default();
    let mut taken = take(args, engine, waiting, &mut objects, &stop, &progress)?;
    if let Some(command) = &mut taken.command {
        command.terminate();
    }

    let names = Symbols::look_up(
        &taken.store.profile,
        &objects,
        &taken.store.perf_maps,
        &mut |what| {
            progress.set_message(format!("looking up names: {what}"));
        },
    );
    let mut summary = Summary::new(
        &taken.store.profile,
        &taken.counts,
        taken.engine,
        taken.mode,
        taken.duration,
    );
    let view = View {
        profile: &taken.store.profile,
        symbols: &names,
        objects: &objects,
        title: &title,
        subtitle: &summary.short(args.frequency),
        period_ns: 1_000_000_000 / u64::from(args.frequency),
        began_wall_ns: taken.began_wall_ns,
        began_monotonic_ns: taken.began_monotonic_ns,
        duration_ns: u64::try_from(taken.duration.as_nanos()).unwrap_or(u64::MAX),
    };
    output.commit(|writer| output::write(format, &view, writer))?;
    progress.finish_and_clear();
    if let Some(stats) = stats {
        summary.cpu = cpu_time();
        stats.commit(|writer| Ok(serde_json::to_writer_pretty(writer, &summary.stats())?))?;
    }

    for note in &taken.counts.notes {
        // Notes name files, and files have any name.
        eprintln!("framewalk: {}", symbols::clean(note));
    }
    let command = taken
        .command
        .as_mut()
        .map(|command| command_end(&args.command, command))
        .unwrap_or_default();
    eprintln!("framewalk: {}: {summary}{command}", args.output.display());
    match taken.error {
        Some(error) => {
            Err(error.context("recording ended early; what was recorded until then is written"))
        }
        None => Ok(()),
    }
}

/// What to record; a command is started, but waits before its exec.
fn target(args: &args::Record) -> anyhow::Result<(Target, Option<Waiting>)> {
    if args.all {
        return Ok((Target::System, None));
    }
    if let Some(program) = args.command.first() {
        let waiting = launch::hold(&args.command)
            .with_context(|| format!("{}: cannot be started", program.display()))?;
        return Ok((Target::Child(waiting.pid()), Some(waiting)));
    }
    for &pid in &args.pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        let status = status.with_context(|| format!("there is no process {pid}"))?;
        let process = status
            .lines()
            .find_map(|line| line.strip_prefix("Tgid:"))
            .unwrap_or("")
            .trim();
        if process != pid.to_string() {
            bail!(
                "{pid} is a thread of process {process}; threads are recorded with their process"
            );
        }
    }
    Ok((Target::Pids(args.pids.clone()), None))
}

/// The engine that was asked for, or the best one that is allowed; one line says which.
fn choose(
    args: &args::Record,
    target: &Target,
    open: &mut Open,
) -> anyhow::Result<Box<dyn Engine>> {
    let asked;
    let kinds = match (args.engine.0, args.mode) {
        (Some(kind), Mode::Auto) | (Some(kind @ Kind::Kernel), _) => {
            asked = [kind];
            &asked[..]
        }
        (Some(kind), _) => bail!(
            "--mode is for the kernel engine; {} has no modes",
            kind.name()
        ),
        (None, Mode::Auto) => Kind::ALL,
        (None, _) => &[Kind::Kernel],
    };
    let settings = Settings {
        frequency: args.frequency,
        max_frames: args.max_frames,
    };
    let mut refusals = Vec::new();
    for &kind in kinds {
        match open(kind, args.mode, target, settings) {
            Ok(engine) => {
                let better: String = refusals
                    .iter()
                    .map(|refusal| format!("; not {refusal}"))
                    .collect();
                eprintln!(
                    "framewalk: engine {} ({}){better}",
                    engine.name(),
                    engine.mode()
                );
                return Ok(engine);
            }
            Err(Unavailable { what, missing }) => {
                refusals.push(format!("{}: {what} (missing: {missing})", kind.name()));
            }
        }
    }
    bail!(
        "nothing can be recorded here, no profile is written\n  {}",
        refusals.join("\n  ")
    )
}

/// Where samples go.
#[derive(Default)]
struct Store {
    profile: Profile,
    perf_maps: PerfMaps,
}

impl Store {
    fn add(&mut self, sample: Sample) {
        let generated =
            |frame: &Frame| matches!(frame.place, Place::Anonymous(_) | Place::Described { .. });
        if sample.frames.iter().any(generated) {
            self.perf_maps.meet(sample.pid);
        }
        self.profile.add(sample);
    }
}

/// What a recording took.
struct Taken {
    store: Store,
    counts: Counts,
    engine: &'static str,
    mode: &'static str,
    duration: Duration,
    began_wall_ns: u64,
    began_monotonic_ns: u64,
    command: Option<Running>,
    /// Why the engine could not go on.
    error: Option<anyhow::Error>,
}

/// Records until the target ends, the time is over or a signal says stop.
fn take(
    args: &args::Record,
    mut engine: Box<dyn Engine>,
    waiting: Option<Waiting>,
    objects: &mut Objects,
    stop: &AtomicBool,
    progress: &ProgressBar,
) -> anyhow::Result<Taken> {
    let mut store = Store::default();
    engine.start().context("recording could not begin")?;
    let began = Instant::now();
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let monotonic = clock_gettime(ClockId::Monotonic);
    let to_tracer = engine.answers_announcements();
    let release = |waiting: Waiting| {
        let released = match to_tracer {
            true => waiting.release_to_tracer().map(|(running, unheard)| {
                if let Some(error) = unheard {
                    eprintln!(
                        "framewalk: announced sections will not be heard: no seccomp filter: {error}"
                    );
                }
                running
            }),
            false => waiting.release(),
        };
        released.with_context(|| format!("{}: cannot be run", args.command[0].display()))
    };
    let command = waiting.map(release).transpose()?;
    raise_file_limit();

    let end = args
        .duration
        .and_then(|duration| began.checked_add(duration));
    let mut error = None;
    while !stop.load(Ordering::Relaxed) {
        let wait = end.map_or(WAIT, |end| {
            end.saturating_duration_since(Instant::now()).min(WAIT)
        });
        if wait.is_zero() {
            break;
        }
        match engine.poll(wait, objects, &mut |sample| store.add(sample)) {
            Ok(true) => {}
            Ok(false) => break,
            Err(failed) => {
                error = Some(failed);
                break;
            }
        }
        progress.set_message(format!(
            "recording: {} s, {} samples, {}",
            began.elapsed().as_secs(),
            store.profile.samples().len(),
            summary::share(&store.profile),
        ));
    }
    let duration = began.elapsed();
    let counts = engine
        .finish(objects, &mut |sample| store.add(sample))
        .unwrap_or_else(|failed| {
            error.get_or_insert(failed);
            Counts::default()
        });
    Ok(Taken {
        store,
        counts,
        engine: engine.name(),
        mode: engine.mode(),
        duration,
        began_wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(0),
        began_monotonic_ns: (monotonic.tv_sec as u64).wrapping_mul(1_000_000_000)
            + monotonic.tv_nsec as u64,
        command,
        error,
    })
}

/// Every mapped file stays open to the end, and machines map many: use what the hard limit allows.
/// After the fork of the command, which keeps the limit that it was given.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

/// CPU time of this process so far, user and system.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// A line that is drawn only on a terminal.
fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("framewalk: {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

fn title(args: &args::Record) -> String {
    if args.all {
        return "the whole machine".to_string();
    }
    if args.command.is_empty() {
        let names = args.pids.iter().map(|pid| {
            let comm =
                std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"));
            comm.map_or(pid.to_string(), |comm| format!("{} ({pid})", comm.trim()))
        });
        return names.collect::<Vec<_>>().join(", ");
    }
    args.command
        .iter()
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn command_end(command: &[std::ffi::OsString], running: &mut Running) -> String {
    let name = command
        .first()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    match running.wait(GRACE) {
        Some(Some(status)) => format!("; {name} {}", launch::describe(status)),
        Some(None) => format!("; {name} ended"),
        None => format!("; {name} is still running, it has been asked to end (SIGTERM)"),
    }
}
