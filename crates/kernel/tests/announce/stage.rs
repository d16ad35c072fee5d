//! The registry inside the kernel, processes that call it, and the reference registry beside them: whatever is asked
//! of the one is asked of the other, and has to be answered alike.

use crate::puppet::{self, Order, PRCTL_BYTES, SOCKET, receive, send, words};
use framewalk_announce::abi::{REGISTER, REPLACE, UNREGISTER};
use framewalk_kernel::{Entries, Error, Heard, Hook, Registry, Space};
use framewalk_sframe::spec::Version;
use framewalk_walk::registry::{self, Listed};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Nothing here takes so long; an emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(100);
/// Calls in one order: the ring through which they are told has room for twice as many.
const AT_ONCE: usize = 4000;
/// The pid namespace that the kernel itself counts in (include/linux/proc_ns.h).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
pub(crate) const PAGE: u64 = 4096;

/// One registry at a time: each would hear all calls.
static TURN: Mutex<()> = Mutex::new(());

/// A prctl(2) call: option, key, address, length, kind and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) option: u64,
    pub(crate) arguments: [u64; 4],
}

impl Call {
    pub(crate) fn register(key: u64, address: u64, length: u64) -> Call {
        let option = REGISTER.into();
        let arguments = [key, address, length, 0];
        Call { option, arguments }
    }

    pub(crate) fn replace(key: u64, address: u64, length: u64) -> Call {
        let mut call = Call::register(key, address, length);
        call.arguments[3] = REPLACE;
        call
    }

    pub(crate) fn unregister(key: u64) -> Call {
        let option = UNREGISTER.into();
        let arguments = [key, 0, 0, 0];
        Call { option, arguments }
    }
}

/// A thread of a puppet.
#[derive(Debug)]
pub(crate) struct Actor {
    stream: UnixStream,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
}

impl Actor {
    fn order(&mut self, order: Order, body: &[u64]) {
        let body: Vec<u8> = body.iter().flat_map(|word| word.to_ne_bytes()).collect();
        send(&mut self.stream, order as u64, &body).expect("the puppet listens");
    }

    fn reply(&mut self) -> (i64, Vec<u8>) {
        let (result, body) = receive(&mut self.stream).expect("the puppet answers");
        (result.cast_signed(), body)
    }

    /// A system call: its result, or the errno below 0.
    pub(crate) fn call(&mut self, number: i64, arguments: &[u64]) -> i64 {
        let mut words = [0; 7];
        words[0] = number.cast_unsigned();
        words[1..=arguments.len()].copy_from_slice(arguments);
        self.order(Order::Call, &words);
        self.reply().0
    }

    /// Maps memory of its own there.
    pub(crate) fn map(&mut self, address: u64, len: u64) {
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let arguments = [address, len, protection, flags as u64, u64::MAX, 0];
        assert_eq!(self.call(libc::SYS_mmap, &arguments), address as i64);
    }

    /// Maps a file of its own there, whose pages can be dropped and come again as they were.
    pub(crate) fn map_file(&mut self, address: u64, len: u64) {
        // A name for it, empty.
        self.map(address, PAGE);
        let file = self.call(libc::SYS_memfd_create, &[address, 0]);
        assert!(file >= 0, "memfd_create: {file}");
        let file = file as u64;
        assert_eq!(self.call(libc::SYS_ftruncate, &[file, len]), 0);
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
        let arguments = [address, len, protection, flags, file, 0];
        assert_eq!(self.call(libc::SYS_mmap, &arguments), address as i64);
    }

    pub(crate) fn protect(&mut self, address: u64, len: u64, protection: i32) {
        let arguments = [address, len, protection as u64];
        assert_eq!(self.call(libc::SYS_mprotect, &arguments), 0);
    }

    /// Drops pages: the next access brings them again.
    pub(crate) fn drop_pages(&mut self, address: u64, len: u64) {
        let arguments = [address, len, libc::MADV_DONTNEED as u64];
        assert_eq!(self.call(libc::SYS_madvise, &arguments), 0);
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        let written = puppet::write(self.tid, address, bytes);
        assert!(written, "{} bytes at {address:#x}", bytes.len());
    }

    /// Begins calls, whose results come later.
    fn begin(&mut self, calls: &[Call]) {
        assert!(calls.len() <= AT_ONCE);
        let words = |call: &Call| {
            let [a, b, c, d] = call.arguments;
            [call.option, a, b, c, d]
        };
        let body: Vec<u64> = calls.iter().flat_map(words).collect();
        debug_assert_eq!(body.len() * 8, calls.len() * PRCTL_BYTES);
        self.order(Order::Prctls, &body);
    }

    /// What the caller saw.
    fn results(&mut self) -> Vec<i64> {
        let (_, body) = self.reply();
        let results = body.chunks_exact(8);
        results
            .map(|word| words::<1>(word)[0].cast_signed())
            .collect()
    }

    /// Ends this thread, and no other.
    pub(crate) fn end(mut self) {
        self.order(Order::Call, &[libc::SYS_exit as u64]);
    }

    /// Waits until the process is gone, or executes another program.
    fn gone(mut self) {
        match receive(&mut self.stream) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {}
            other => panic!("{} is still there: {other:?}", self.tid),
        }
    }

    /// Whether a page is present.
    fn has_page(&self, address: u64) -> bool {
        let mut entry = [0; 8];
        let map = File::open(format!("/proc/{}/pagemap", self.tid)).expect("pagemap");
        let read = map.read_exact_at(&mut entry, address / PAGE * 8);
        read.is_ok() && u64::from_ne_bytes(entry) >> 63 == 1
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) registry: Registry,
    pub(crate) reference: registry::Registry,
    /// The hook has absent pages brought in.
    pub(crate) faults_in: bool,
    /// So many may fork, and call, at once, and each is heard all the same.
    pub(crate) forks_at_once: usize,
    pub(crate) calls_at_once: usize,
    listener: UnixListener,
    name: String,
    puppets: Vec<Child>,
    /// All that ever were.
    pids: BTreeSet<u32>,
    /// Heard, by thread.
    heard: HashMap<u32, VecDeque<Heard>>,
    /// Some calls were of processes that are none of ours.
    others: bool,
    /// Calls that were only listened to, and those that were answered.
    answers: [usize; 2],
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// Loads the programs with the best hook that the kernel allows, or says why not.
    pub(crate) fn open(test: &str) -> Option<Stage> {
        match Stage::load(test, || Registry::load(Hook::ALL)) {
            Ok(stage) => Some(stage),
            Err(why) => {
                println!("SKIPPED {test}: {why}");
                None
            }
        }
    }

    pub(crate) fn load(
        test: &str,
        load: impl FnOnce() -> Result<Registry, Error>,
    ) -> Result<Stage, String> {
        let turn = TURN.lock().unwrap_or_else(|poison| poison.into_inner());
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        if namespace.as_os_str() != FIRST_PID_NAMESPACE {
            return Err("in a pid namespace: the kernel side tells other pids".to_string());
        }
        match load() {
            Ok(registry) => Ok(Stage::new(test, registry, turn)),
            Err(error) => {
                // Root is refused single hooks, but not all of them.
                let all = matches!(error, Error::NoHook);
                assert!(!(all && is_root()), "root, and yet refused: {error}");
                Err(error.to_string())
            }
        }
    }

    fn new(test: &str, registry: Registry, turn: MutexGuard<'static, ()>) -> Stage {
        let name = format!("framewalk {test} {}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let listener = UnixListener::bind_addr(&address).expect("a new name");
        listener.set_nonblocking(true).expect("a socket can");
        let hook = registry.hook();
        println!("{test}: {} {:?}", hook.name(), registry.refusals());
        // A listener may take its time, where there is task work (Linux 6.18).
        let task_work = !hook.answers() && kernel() >= (6, 18);
        // Since 7.0 all programs can be preempted, and are then passed over on that CPU: one of those that hear the
        // same thing is free as long as no more than these are busy.
        let (forks_at_once, calls_at_once) = match hook {
            _ if kernel() < (7, 0) => (usize::MAX, usize::MAX),
            Hook::SystemCall => (3, 3),
            Hook::Security => (3, 2),
            Hook::Unknown | Hook::Entry => (3, 1),
        };
        Stage {
            forks_at_once,
            calls_at_once,
            registry,
            reference: registry::Registry::default(),
            faults_in: hook == Hook::SystemCall || task_work,
            listener,
            name,
            puppets: Vec::new(),
            pids: BTreeSet::new(),
            heard: HashMap::new(),
            others: false,
            answers: [0; 2],
            _turn: turn,
        }
    }

    /// A new process.
    pub(crate) fn puppet(&mut self) -> Actor {
        let executable = std::env::current_exe().expect("this executable has a path");
        let child = Command::new(executable)
            .env(SOCKET, &self.name)
            .stdin(Stdio::null())
            .spawn();
        self.puppets.push(child.expect("this executable can run"));
        self.arrival()
    }

    /// The next one that comes to the socket.
    fn arrival(&mut self) -> Actor {
        let begin = Instant::now();
        loop {
            if let Some(actor) = self.arrived() {
                return actor;
            }
            assert!(begin.elapsed() < PATIENCE, "nobody comes");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Whoever is there already.
    fn arrived(&mut self) -> Option<Actor> {
        let mut stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("{error}"),
        };
        stream.set_nonblocking(false).expect("a socket can");
        let patience = stream.set_read_timeout(Some(PATIENCE));
        patience.expect("a socket can");
        let (_, ids) = receive(&mut stream).expect("it says who it is");
        let [pid, tid] = words::<2>(&ids).map(|id| id as u32);
        self.pids.insert(pid);
        Some(Actor { stream, pid, tid })
    }

    /// Another thread of its process.
    pub(crate) fn thread(&mut self, actor: &mut Actor) -> Actor {
        actor.order(Order::Thread, &[]);
        actor.reply();
        self.arrival()
    }

    pub(crate) fn fork(&mut self, actor: &mut Actor) -> Actor {
        self.forks(std::slice::from_mut(actor)).remove(0)
    }

    /// Each of them forks, all at once.
    pub(crate) fn forks(&mut self, actors: &mut [Actor]) -> Vec<Actor> {
        let mut born = Vec::new();
        for actors in actors.chunks_mut(self.forks_at_once) {
            for actor in &mut *actors {
                actor.order(Order::Fork, &[]);
            }
            let mut children: Vec<Actor> = actors.iter().map(|_| self.arrival()).collect();
            for actor in actors {
                let (child, _) = actor.reply();
                self.reference.fork(actor.pid, child as u32);
                let mut pids = children.iter().map(|child| i64::from(child.pid));
                let place = pids.position(|pid| pid == child);
                born.push(children.swap_remove(place.expect("the child came")));
            }
        }
        born
    }

    /// The same, and something else over and over until the child is there.
    pub(crate) fn fork_during(
        &mut self,
        actor: &mut Actor,
        mut meanwhile: impl FnMut(&mut Stage),
    ) -> Actor {
        actor.order(Order::Fork, &[]);
        let child = loop {
            meanwhile(self);
            if let Some(child) = self.arrived() {
                break child;
            }
        };
        actor.reply();
        self.reference.fork(actor.pid, child.pid);
        child
    }

    /// Ends a process from outside.
    pub(crate) fn kill(&mut self, actor: Actor) {
        let mut puppets = self.puppets.iter_mut();
        let found = puppets.find(|puppet| puppet.id() == actor.pid);
        found.expect("a puppet").kill().expect("it can be ended");
        self.reference.exit(actor.pid);
        actor.gone();
    }

    /// A process that shares the memory. This thread can be told nothing until that is over: see [`Stage::resume`].
    pub(crate) fn vfork(&mut self, actor: &mut Actor) -> Actor {
        actor.order(Order::Vfork, &[]);
        let child = self.arrival();
        self.reference.share(actor.pid, child.pid);
        child
    }

    /// After its vfork(2).
    pub(crate) fn resume(&mut self, actor: &mut Actor) {
        let (child, _) = actor.reply();
        assert!(self.pids.contains(&(child as u32)), "{child}");
    }

    /// Executes another program; the other threads of the process are gone.
    pub(crate) fn exec(&mut self, actor: Actor) -> Actor {
        self.exec_during(actor, |_| ())
    }

    /// The same, and something else meanwhile.
    pub(crate) fn exec_during(
        &mut self,
        mut actor: Actor,
        meanwhile: impl FnOnce(&mut Stage),
    ) -> Actor {
        actor.order(Order::Exec, &[]);
        meanwhile(self);
        let pid = actor.pid;
        actor.gone();
        self.reference.exec(pid);
        let actor = self.arrival();
        assert_eq!((actor.pid, actor.tid), (pid, pid));
        actor
    }

    /// Ends the process.
    pub(crate) fn exit(&mut self, actor: Actor) {
        self.exit_during(actor, |_| ());
    }

    /// The same, and something else meanwhile.
    pub(crate) fn exit_during(&mut self, mut actor: Actor, meanwhile: impl FnOnce(&mut Stage)) {
        actor.order(Order::Call, &[libc::SYS_exit_group as u64]);
        meanwhile(self);
        self.reference.exit(actor.pid);
        actor.gone();
    }

    /// Makes a call: the answer, or what it would have been.
    pub(crate) fn ask(&mut self, actor: &mut Actor, call: Call) -> i64 {
        self.ask_all(actor, &[call])[0].answer
    }

    /// Makes calls. The reference registry answers them, too, and alike.
    pub(crate) fn ask_all(&mut self, actor: &mut Actor, calls: &[Call]) -> Vec<Heard> {
        let mut all = Vec::new();
        for calls in calls.chunks(AT_ONCE) {
            let heard = self.ask_only(&mut [(actor, calls)]).remove(0);
            self.compare(actor, calls, &heard);
            all.extend(heard);
        }
        all
    }

    /// What the reference registry answers.
    fn refer(&mut self, actor: &Actor, call: &Call) -> i32 {
        let faults_in = self.faults_in;
        let mut read = |address: u64, into: &mut [u8]| {
            let end = address + into.len() as u64;
            let mut pages = (address / PAGE..end.div_ceil(PAGE)).map(|page| page * PAGE);
            let present = faults_in || pages.all(|page| actor.has_page(page));
            present && puppet::read(actor.tid, address, into)
        };
        let option = call.option as u32;
        let answer = self
            .reference
            .prctl(actor.pid, option, call.arguments, &mut read);
        answer.expect("one of the two calls")
    }

    /// Makes calls of several processes at once, none of which shares its address space with another.
    pub(crate) fn ask_each(&mut self, calls: &mut [(&mut Actor, &[Call])]) {
        for calls in calls.chunks_mut(self.calls_at_once) {
            let all = self.ask_only(calls);
            for ((actor, calls), heard) in calls.iter().zip(all) {
                self.compare(actor, calls, &heard);
            }
        }
    }

    fn compare(&mut self, actor: &Actor, calls: &[Call], heard: &[Heard]) {
        for (call, heard) in calls.iter().zip(heard) {
            let (answer, expected) = (heard.answer, i64::from(self.refer(actor, call)));
            let same = answer == expected || answer > 0 && expected > 0 && call.is_register();
            assert!(same, "{call:x?} by {}: {answer}, not {expected}", actor.tid);
        }
    }

    /// Makes calls, each thread its own, all at once, and asks nobody else.
    pub(crate) fn ask_only(&mut self, calls: &mut [(&mut Actor, &[Call])]) -> Vec<Vec<Heard>> {
        self.ask_during(calls, |_| ())
    }

    /// The same, and something else meanwhile.
    pub(crate) fn ask_during(
        &mut self,
        calls: &mut [(&mut Actor, &[Call])],
        meanwhile: impl FnOnce(&mut Stage),
    ) -> Vec<Vec<Heard>> {
        for (actor, calls) in &mut *calls {
            actor.begin(calls);
        }
        meanwhile(self);
        let mut all = Vec::new();
        for (actor, calls) in &mut *calls {
            let results = actor.results();
            let heard = self.hear(actor.tid, calls.len());
            assert_eq!(results.len(), calls.len());
            for ((call, heard), result) in calls.iter().zip(&heard).zip(results) {
                assert_eq!(heard.pid, actor.pid);
                assert_eq!(heard.option, call.option as u32);
                assert_eq!(heard.arguments, call.arguments);
                let id = heard.answer > 0 && call.is_register();
                assert_eq!(heard.number != 0, id, "{heard:?}");
                let seen = match heard.answered {
                    true => heard.answer,
                    false => -i64::from(libc::EINVAL),
                };
                assert_eq!(result, seen, "what the caller saw: {heard:?}");
                self.answers[usize::from(heard.answered)] += 1;
            }
            all.push(heard);
        }
        all
    }

    /// Takes what was heard.
    fn listen(&mut self) {
        for heard in self.registry.heard().expect("the ring can be read") {
            self.others |= !self.pids.contains(&heard.pid);
            self.heard.entry(heard.tid).or_default().push_back(heard);
        }
    }

    /// The next calls of a thread that were heard.
    fn hear(&mut self, tid: u32, count: usize) -> Vec<Heard> {
        let begin = Instant::now();
        loop {
            self.listen();
            let queue = self.heard.entry(tid).or_default();
            if queue.len() >= count {
                return queue.drain(..count).collect();
            }
            let counts = self.registry.maps().counts();
            let late = begin.elapsed() > PATIENCE;
            // `unheard`: others announced so much that the ring was full.
            assert!(!late, "{} of {count} calls heard: {counts:?}", queue.len());
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// What the kernel has of our processes, each one's sections in their order.
    pub(crate) fn state(&self) -> BTreeMap<u32, Vec<Listed>> {
        let mut numbers = BTreeSet::new();
        let mut state = BTreeMap::new();
        for space in self.registry.maps().all() {
            for section in &space.sections {
                assert!(numbers.insert(section.number), "twice: {section:?}");
            }
            for pid in &space.processes {
                let listed = listed(&space);
                if self.pids.contains(pid) && !listed.is_empty() {
                    state.insert(*pid, listed);
                }
            }
        }
        state
    }

    /// The kernel's registry and the reference are in the same state.
    pub(crate) fn check(&self) {
        let (state, reference) = (self.state(), self.reference.list());
        let pids: BTreeSet<&u32> = state.keys().chain(reference.keys()).collect();
        for pid in pids {
            let (counts, misses) = (self.registry.maps().counts(), self.registry.missed());
            let (ours, theirs) = (state.get(pid), reference.get(pid));
            assert_eq!(ours, theirs, "{pid}; {counts:?}, {misses} misses");
        }
    }

    /// Whether a process is none that others began.
    pub(crate) fn is_ours(&self, pid: u32) -> bool {
        // A child of ours that nobody has met yet runs the same executable.
        let exe = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).ok();
        self.pids.contains(&pid)
            || exe(&pid.to_string()).is_some_and(|one| exe("self") == Some(one))
    }

    /// Whether calls of others were heard.
    pub(crate) fn others_announced(&mut self) -> bool {
        self.listen();
        self.others
    }

    /// All actors have left: the registry is empty.
    pub(crate) fn finish(&mut self) {
        self.end_puppets();
        println!("programs were passed over {} times", self.registry.missed());
        match (self.registry.hook().answers(), self.answers) {
            // Where the answering program was busy on the same CPU another one listens. That is rare.
            (true, [0, _]) => {}
            (true, [missed, answered]) => {
                println!("{missed} calls were not answered, {answered} were");
                assert!(missed * 20 < answered);
            }
            (false, [_, answered]) => assert_eq!(answered, 0),
        }
        let begin = Instant::now();
        loop {
            let (entries, counts) = (self.registry.entries(), self.registry.maps().counts());
            if entries == Entries::default() && (counts.spaces, counts.sections) == (0, 0) {
                return;
            }
            let foreign = || {
                let spaces = self.registry.maps().all().into_iter();
                let mut pids = spaces.flat_map(|space| space.processes);
                pids.any(|pid| !self.pids.contains(&pid))
            };
            let late = begin.elapsed() > Duration::from_secs(10);
            if late && foreign() {
                println!("other processes announce, too: whether all is gone cannot be told");
                return;
            }
            assert!(
                !late,
                "left over: {entries:?}, {counts:?}, {:?}",
                self.registry.missed()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn end_puppets(&mut self) {
        for mut puppet in self.puppets.drain(..) {
            // Of those that are gone only the status is left.
            let _ = puppet.kill();
            let _ = puppet.wait();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.end_puppets();
    }
}

impl Call {
    fn is_register(&self) -> bool {
        self.option as u32 == REGISTER
    }
}

/// A space as the reference registry lists it.
pub(crate) fn listed(space: &Space) -> Vec<Listed> {
    let sections = space.sections.iter().map(|section| Listed {
        text_start: section.text.start,
        text_end: section.text.end,
        key: section.key,
        address: section.address,
        len: section.length,
        version: (!section.area).then_some(Version(section.version)),
    });
    sections.collect()
}

fn is_root() -> bool {
    // Files of this process belong to it.
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Version and patch level.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|word| word.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
