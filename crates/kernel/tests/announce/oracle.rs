//! Random and hostile histories of a family of processes: the registry inside the kernel and the reference registry
//! answer every call alike, and are in the same state after it.
//!
//! `FRAMEWALK_ORACLE_STEPS` and `FRAMEWALK_ORACLE_SEED` make it longer, and begin it where it failed.

use crate::areas;
use crate::puppet;
use crate::random::Random;
use crate::sections::{FIELDS, PCREL, SORTED, Shape, get, put, written};
use crate::stage::{Actor, Call, PAGE, Stage};
use framewalk_announce::abi::{KIND_AREA, REGISTER, REPLACE, UNREGISTER, USER_END};
use framewalk_announce::area::layout::{
    FIXED, FRAME_POINTER, MAX_AREA, NONE, OPAQUE, RUNTIME, halves,
};
use std::time::{Duration, Instant};

/// Ordinary memory, and memory whose pages can be dropped and come again.
const AT: u64 = 0x1000_0000_0000;
const FILE: u64 = AT + 0x100_0000;
const LEN: u64 = 16 * PAGE;
/// Texts lie in so many places of so many bytes, so that they often touch and often overlap.
const TEXT: u64 = AT + 0x1000_0000;
const PLACES: u64 = 60;
const PLACE: u64 = 0x100;

const KEYS: u64 = 6;
/// Threads and processes at a time, and threads of one process.
const MEMBERS: usize = 14;
const THREADS: usize = 3;
/// It ends earlier on a slow machine.
const LONG_ENOUGH: Duration = Duration::from_secs(25);

#[test]
fn the_kernel_and_the_reference_agree() {
    const TEST: &str = "the_kernel_and_the_reference_agree";
    let Some(stage) = Stage::open(TEST) else {
        return;
    };
    let set = |name| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
    };
    let seed = set("FRAMEWALK_ORACLE_SEED").unwrap_or_else(Random::any_seed);
    let steps = set("FRAMEWALK_ORACLE_STEPS").unwrap_or(6000);
    println!("FRAMEWALK_ORACLE_SEED={seed} FRAMEWALK_ORACLE_STEPS={steps}");
    let mut world = World {
        stage,
        random: Random::new(seed),
        members: Vec::new(),
        done: Vec::new(),
        tally: [0; 4],
    };
    world.begin();
    let begin = Instant::now();
    for step in 0..steps {
        if begin.elapsed() > LONG_ENOUGH && set("FRAMEWALK_ORACLE_STEPS").is_none() {
            println!("stopped after {step} steps");
            break;
        }
        world.step();
        if step % 8 == 0 {
            world.stage.check();
        }
    }
    world.end();
}

/// A thread of the family.
struct Member {
    actor: Actor,
    /// Made by vfork(2), and has not executed anything yet: its memory is that of the other.
    borrows: bool,
    /// The child that it waits for.
    waits: Option<u32>,
}

struct World {
    stage: Stage,
    random: Random,
    members: Vec<Member>,
    done: Vec<String>,
    /// Taken, refused, removed, and changes of life.
    tally: [u64; 4],
}

impl World {
    fn step(&mut self) {
        let free = |member: &Member| member.waits.is_none();
        let able: Vec<usize> = (0..self.members.len())
            .filter(|&who| free(&self.members[who]))
            .collect();
        // A waiting thread has a child, which does not wait.
        let who = able[self.random.below(able.len() as u64) as usize];
        match self.random.below(100) {
            0..60 => self.register(who),
            60..78 => self.unregister(who),
            78..82 => self.nonsense(who),
            82..87 => self.change_memory(who),
            _ => self.live(who),
        }
    }

    fn note(&mut self, what: String) {
        self.done.push(what);
    }

    /// Everybody that there is, at the beginning and whenever all have gone.
    fn begin(&mut self) {
        let actor = self.stage.puppet();
        self.enter(actor);
    }

    /// A program that has just begun.
    fn enter(&mut self, mut actor: Actor) {
        actor.map(AT, LEN);
        actor.map_file(FILE, LEN);
        self.add(actor, false);
    }

    fn add(&mut self, actor: Actor, borrows: bool) {
        let waits = None;
        self.members.push(Member {
            actor,
            borrows,
            waits,
        });
    }

    fn ask(&mut self, who: usize, call: Call) {
        let tid = self.members[who].actor.tid;
        self.note(format!("{tid}: {call:x?}"));
        let answer = self.stage.ask(&mut self.members[who].actor, call);
        let kind = match answer {
            ..=0 => 1,
            _ if call.option as u32 == REGISTER => 0,
            _ => 2,
        };
        self.tally[kind] += 1;
    }

    fn register(&mut self, who: usize) {
        let random = &mut self.random;
        let region = [AT, AT, FILE][random.below(3) as usize];
        // Often across the end of a page.
        let page = region + random.below(LEN / PAGE) * PAGE;
        let at = page + [random.below(PAGE), PAGE - random.below(0x60)][random.below(2) as usize];
        let key = random.below(KEYS);
        let (mut bytes, mut call) = match random.one_in(4) {
            true => {
                let area = area(random, key);
                let call = areas::register(key, at, area.area_len);
                (area.bytes(), call)
            }
            false => {
                let bytes = section(random, at);
                let call = Call::register(key, at, bytes.len() as u64);
                (bytes, call)
            }
        };
        for _ in 0..[0, 0, 0, 1, 1, 2][random.below(6) as usize] {
            spoil(random, &mut bytes, call.arguments[3]);
        }
        if random.one_in(12) {
            call.arguments[2] = random.edge(call.arguments[2]);
        }
        if random.one_in(5) {
            call.arguments[3] |= REPLACE;
        }
        // What was there before may be a section, too; and memory may be gone.
        if !random.one_in(10) {
            puppet::write(self.members[who].actor.tid, at, &bytes);
        }
        self.ask(who, call);
    }

    fn unregister(&mut self, who: usize) {
        let key = self.random.below(KEYS + 1);
        self.ask(who, Call::unregister(key));
    }

    fn nonsense(&mut self, who: usize) {
        let option = [REGISTER, UNREGISTER][self.random.below(2) as usize];
        let upper = [0, self.random.next() << 32][self.random.below(2) as usize];
        let mut call = Call {
            option: u64::from(option) | upper,
            arguments: [self.random.below(KEYS), AT, 0x40, self.random.below(2)],
        };
        for _ in 0..=self.random.below(2) {
            let which = self.random.below(4) as usize;
            call.arguments[which] = self.random.edge(call.arguments[which]);
        }
        self.ask(who, call);
    }

    fn change_memory(&mut self, who: usize) {
        let random = &mut self.random;
        let at = [AT, FILE][random.below(2) as usize] + random.below(LEN / PAGE) * PAGE;
        let len = (1 + random.below(3)) * PAGE;
        let readable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let anew = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let (call, arguments): (i64, &[u64]) = match random.below(6) {
            0 => (libc::SYS_munmap, &[at, len]),
            1 => (libc::SYS_mprotect, &[at, len, 0]),
            2 => (libc::SYS_mprotect, &[at, len, readable]),
            3 => (libc::SYS_mprotect, &[at, len, libc::PROT_READ as u64]),
            4 => (libc::SYS_madvise, &[at, len, libc::MADV_DONTNEED as u64]),
            _ => (
                libc::SYS_mmap,
                &[at, len, readable, anew as u64, u64::MAX, 0],
            ),
        };
        // Where nothing is mapped it fails, which is as good.
        let result = self.members[who].actor.call(call, arguments);
        let tid = self.members[who].actor.tid;
        self.note(format!(
            "{tid}: system call {call} {arguments:x?} = {result}"
        ));
    }

    fn live(&mut self, who: usize) {
        let pid = self.members[who].actor.pid;
        let threads = self.members.iter();
        let threads = threads.filter(|member| member.actor.pid == pid).count();
        let room = self.members.len() < MEMBERS;
        let what = self.random.below(10);
        self.tally[3] += 1;
        self.note(format!("{}: life {what}", self.members[who].actor.tid));
        let member = &mut self.members[who];
        match what {
            0..4 if room => {
                let child = self.stage.fork(&mut member.actor);
                self.add(child, false);
            }
            4 if room => {
                let child = self.stage.vfork(&mut member.actor);
                member.waits = Some(child.pid);
                self.add(child, true);
            }
            5 if room && !member.borrows && threads < THREADS => {
                let thread = self.stage.thread(&mut member.actor);
                self.add(thread, false);
            }
            6 => {
                let actor = self.leave(who);
                let actor = self.stage.exec(actor);
                self.resume(pid);
                self.enter(actor);
            }
            7 if threads > 1 => self.members.swap_remove(who).actor.end(),
            8.. => {
                let actor = self.leave(who);
                self.stage.exit(actor);
                self.resume(pid);
                if self.members.is_empty() {
                    self.begin();
                }
            }
            _ => return,
        }
        self.stage.check();
    }

    /// Takes a process out of the family, with all its threads.
    fn leave(&mut self, who: usize) -> Actor {
        let actor = self.members.swap_remove(who).actor;
        self.members.retain(|member| member.actor.pid != actor.pid);
        actor
    }

    /// Whoever waits for this process goes on.
    fn resume(&mut self, pid: u32) {
        for member in &mut self.members {
            if member.waits == Some(pid) {
                self.stage.resume(&mut member.actor);
                member.waits = None;
            }
        }
    }

    fn end(mut self) {
        self.stage.check();
        while let Some(who) = self
            .members
            .iter()
            .position(|member| member.waits.is_none())
        {
            let actor = self.leave(who);
            let pid = actor.pid;
            self.stage.exit(actor);
            self.resume(pid);
        }
        assert!(self.members.is_empty());
        let [taken, refused, removed, life] = self.tally;
        println!("{taken} taken, {refused} refused, {removed} removals, {life} changes of life");
        assert!(taken > 0 && refused > 0 && removed > 0 && life > 0);
        self.stage.check();
        self.stage.finish();
    }
}

/// A sound section of any kind.
fn section(random: &mut Random, at: u64) -> Vec<u8> {
    let text = match random.below(30) {
        0 => 1,
        1 => USER_END - PLACE,
        _ => TEXT + random.below(PLACES) * PLACE,
    };
    let mut functions = Vec::new();
    let mut start = text + [0, 0, 0, random.below(PLACE)][random.below(4) as usize];
    for _ in 0..1 + random.below(3) {
        let size = [PLACE, PLACE, 1 + random.below(3 * PLACE)][random.below(3) as usize];
        functions.push((start, size as u32));
        start += size + [0, random.below(PLACE)][random.below(2) as usize];
    }
    if random.one_in(4) {
        return written(at, &functions);
    }
    // A start of 4 bytes reaches only so far.
    let near = text.abs_diff(at) < 1 << 30;
    let version = if near && random.one_in(2) { 2 } else { 3 };
    let flags = SORTED | [0, PCREL][random.below(2) as usize];
    let mut shape = Shape::new(version, flags, &functions);
    if random.one_in(4) {
        shape.auxiliary = random.below(20) as u8;
        shape.gap = random.below(40) as u32;
        shape.tail = random.below(40) as u32;
    }
    shape.bytes(at)
}

/// A sound frame area, of any size.
fn area(random: &mut Random, key: u64) -> areas::Shape {
    let text = TEXT + random.below(PLACES) * PLACE;
    let mut area = areas::Shape::new(key, text, PLACE << random.below(3));
    area.capacity = [0, 0, 1, 100][random.below(4) as usize];
    area.shift = 6 + random.below(11) as u16;
    let most = [64, 1 << 20, MAX_AREA / 4][random.below(3) as usize];
    area.area_len = area.least_len() + random.below(most);
    area.default = [
        [NONE, 0, 0],
        [OPAQUE, 0, 0],
        [FRAME_POINTER | RUNTIME << 8, 0, 0],
        [FIXED, 16, halves(-8, 0)],
    ][random.below(4) as usize];
    area
}

/// Puts an extreme number in place of one that means something.
fn spoil(random: &mut Random, bytes: &mut [u8], kind: u64) {
    if kind == KIND_AREA {
        let (at, len) = areas::FIELDS[random.below(areas::FIELDS.len() as u64) as usize];
        let value = random.edge(get(bytes, at as usize, len));
        return put(bytes, at as usize, len, value);
    }
    let mut fields = FIELDS.to_vec();
    // Start and size of the first entries, of either version.
    fields.extend([
        (28, 8),
        (28, 4),
        (32, 4),
        (36, 4),
        (44, 8),
        (48, 4),
        (52, 4),
    ]);
    let (at, len) = fields[random.below(fields.len() as u64) as usize];
    if at + len <= bytes.len() {
        let value = random.edge(get(bytes, at, len));
        put(bytes, at, len, value);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = self.done.len().saturating_sub(60);
            println!("{}", self.done[last..].join("\n"));
        }
    }
}
