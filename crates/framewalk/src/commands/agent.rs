//! `framewalk agent`.

use crate::agent::{Caught, Keeper, Latecomer, Lock, Place, Tally, describe, sees_all_pids};
use crate::args;
use crate::processes::task;
use crate::symbols::clean;
use anyhow::{Context, bail};
use framewalk_announce::abi;
use framewalk_kernel::{Hook, Registry};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How soon what was registered is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How soon it is looked at again.
const ROUND: Duration = Duration::from_secs(1);
/// Lines about sections that changed, in one round.
const MAX_LINES: usize = 10;
/// How often to repeat, at most, that some sections are not watched.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// Listens until a signal says stop.
pub fn run(args: &args::Agent) -> anyhow::Result<()> {
    let (stop, stopped) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        pipe::register(signal, stopped.try_clone()?)?;
    }
    let place = Place::new(&args.pin).with_context(|| args.pin.display().to_string())?;
    let mut lock = match Lock::take(place.folder()) {
        Ok(Ok(lock)) => lock,
        Ok(Err(holder)) => bail!(
            "{holder} runs already, and has its maps in {}; one is enough",
            place.folder().display()
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("an agent needs root: {error}")
        }
        Err(error) => return Err(error.into()),
    };
    if !sees_all_pids() {
        bail!("an agent has to run in the machine's own pid namespace, not in a container's");
    }
    place
        .make()
        .with_context(|| place.folder().display().to_string())?;
    let mut agent = Agent {
        registry: Registry::load(Hook::ALL)?,
        keeper: Keeper::new()?,
        place,
        quarantined: 0,
        noted: None,
    };
    agent.keeper.pin(agent.place.folder())?;
    agent.registry.maps_mut().pin(agent.place.folder())?;
    // Whoever finds this agent finds what was registered before it, too.
    let late = Latecomer::look(&agent.registry, None)?;
    for note in late.notes() {
        eprintln!("framewalk: agent: {note}");
    }
    let said = describe(&agent.registry);
    lock.say(&said)?;
    eprintln!("framewalk: agent: {said}");
    if late.adopted > 0 {
        let adopted = late.adopted;
        eprintln!("framewalk: agent: {adopted} frame areas of programs that run already");
    }
    let result = agent.listen(&stop);
    // Before the maps go, so that nobody looks for them then.
    lock.say("")?;
    let counts = agent.registry.maps().counts();
    eprintln!(
        "framewalk: agent: ended: {} announcements heard, {} of them refused; {} sections quarantined",
        counts.heard, counts.refused, agent.quarantined
    );
    result
}

/// The agent. Dropping it removes what it pinned.
struct Agent {
    registry: Registry,
    keeper: Keeper,
    place: Place,
    quarantined: u64,
    /// When it was last said that some sections are not watched.
    noted: Option<Instant>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        Keeper::unpin(self.place.folder());
        self.registry.maps_mut().unpin(self.place.folder());
    }
}

impl Agent {
    /// Until there is something to read.
    fn listen(&mut self, stop: &UnixStream) -> anyhow::Result<()> {
        let mut next_round = Instant::now();
        loop {
            let heard = self.registry.heard()?;
            let registered: BTreeSet<(u64, u32)> = heard
                .iter()
                .filter(|call| call.option == abi::REGISTER && call.number != 0)
                .map(|call| (call.space, call.pid))
                .collect();
            self.keeper.registered(&self.registry, &registered);
            if Instant::now() >= next_round {
                let (caught, tally) = self.keeper.round(&self.registry)?;
                self.tell(&caught, &tally);
                next_round = Instant::now() + ROUND;
            }
            let wait = Timespec::try_from(TICK)?;
            match poll(&mut [PollFd::new(stop, PollFlags::IN)], Some(&wait)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error).context("poll"),
            }
        }
    }

    /// Says what came of a round.
    fn tell(&mut self, caught: &[Caught], tally: &Tally) {
        self.quarantined += caught.len() as u64;
        for Caught { pid, section } in caught.iter().take(MAX_LINES) {
            let name = task::stat(*pid, *pid).map(|stat| clean(&stat.comm));
            eprintln!(
                "framewalk: agent: {} ({pid}): the section at {:#x} (key {:#x}) is not what it was when it was registered; it is not used any more",
                name.unwrap_or_default(),
                section.address,
                section.key
            );
        }
        if caught.len() > MAX_LINES {
            let more = caught.len() - MAX_LINES;
            eprintln!("framewalk: agent: and {more} other sections");
        }
        let due = self.noted.is_none_or(|noted| noted.elapsed() >= NOTE_EVERY);
        if let Some(note) = tally.note().filter(|_| due) {
            eprintln!("framewalk: agent: {note}");
            self.noted = Some(Instant::now());
        }
    }
}
