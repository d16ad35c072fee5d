//! The profile in memory: every frame once, every stack once, samples that refer to them.
//!
//! Stacks are a tree that grows from the outermost frame inwards, so that stacks with the same
//! callers share them; a stack is the number of its innermost node. The roots are the reasons why
//! walks ended ([`Stop`]), so that a stack that was cut never mixes with a complete one.
//!
//! A sample costs 16 bytes, whatever the depth of its stack.

use crate::sample::{Frame, Place, Sample};
use ahash::RandomState;
use framewalk_walk::{Origin, Stop};
use indexmap::IndexSet;

/// A frame of a [`Profile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub u32);

/// A stack of a [`Profile`]: a node of its tree of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackId(pub u32);

/// A thread of a [`Profile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(pub u32);

/// A frame, and for code outside every file the process that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Located {
    /// The process of a [`Place::Anonymous`] or [`Place::Described`]; 0 for every other place.
    pub pid: u32,
    /// The frame.
    pub frame: Frame,
}

/// A thread under one name; it gets another entry when its name changes (at exec, for example).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Thread {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Its name.
    pub comm: String,
}

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Where.
    pub thread: ThreadId,
    /// What it ran.
    pub stack: StackId,
}

/// A frame below (called by) another stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Node {
    caller: u32,
    frame: u32,
}

/// The first node numbers are the roots: one for each [`Stop`], by its number.
const ROOTS: u32 = Stop::ALL.len() as u32;

/// All that a recording took.
#[derive(Debug, Default)]
pub struct Profile {
    // Hashed with a random key: the addresses are the choice of whoever is recorded.
    frames: IndexSet<Located, RandomState>,
    nodes: IndexSet<Node, RandomState>,
    threads: IndexSet<Thread, RandomState>,
    /// The last stack, outermost first: most of the next one will be the same.
    last: Vec<(Located, u32)>,
    last_root: u32,
    samples: Vec<Taken>,
    stopped: [u64; Stop::ALL.len()],
    origins: [u64; Origin::ALL.len()],
    described: Described,
}

/// Frames of all samples in code that frame areas describe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Described {
    /// With a name, or of a run time.
    pub frames: u64,
    /// Of a language's run time.
    pub runtime_frames: u64,
}

impl Profile {
    /// Takes a sample in.
    pub fn add(&mut self, sample: Sample) {
        let mut stack = u32::from(sample.stop as u8);
        if self.last_root != stack {
            self.last.clear();
            self.last_root = stack;
        }
        for (depth, &frame) in sample.frames.iter().rev().enumerate() {
            self.origins[frame.origin as usize] += 1;
            let pid = match frame.place {
                Place::Described { runtime, .. } => {
                    self.described.frames += 1;
                    self.described.runtime_frames += u64::from(runtime);
                    sample.pid
                }
                Place::Anonymous(_) => sample.pid,
                Place::Kernel(_) | Place::Object(..) => 0,
            };
            let located = Located { pid, frame };
            match self.last.get(depth) {
                Some(&(last, node)) if last == located => stack = node,
                _ => {
                    self.last.truncate(depth);
                    // SANITY: 2^32 entries of any of these sets would need more than 100 GB first.
                    let frame = self.frames.insert_full(located).0 as u32;
                    stack = ROOTS
                        + self
                            .nodes
                            .insert_full(Node {
                                caller: stack,
                                frame,
                            })
                            .0 as u32;
                    self.last.push((located, stack));
                }
            }
        }
        self.stopped[sample.stop as usize] += 1;
        let thread = Thread {
            pid: sample.pid,
            tid: sample.tid,
            comm: sample.comm,
        };
        let thread = ThreadId(self.threads.insert_full(thread).0 as u32);
        self.samples.push(Taken {
            time_ns: sample.time_ns,
            thread,
            stack: StackId(stack),
        });
    }

    /// Every sample, in the order of arrival.
    pub fn samples(&self) -> &[Taken] {
        &self.samples
    }

    /// Every frame, in the order of their ids.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = (FrameId, &Located)> {
        self.frames
            .iter()
            .enumerate()
            .map(|(i, frame)| (FrameId(i as u32), frame))
    }

    /// The frame behind an id of this profile.
    pub fn frame(&self, id: FrameId) -> &Located {
        &self.frames[id.0 as usize]
    }

    /// Every thread, in the order of their ids.
    pub fn threads(&self) -> impl ExactSizeIterator<Item = (ThreadId, &Thread)> {
        self.threads
            .iter()
            .enumerate()
            .map(|(i, thread)| (ThreadId(i as u32), thread))
    }

    /// The thread behind an id of this profile.
    pub fn thread(&self, id: ThreadId) -> &Thread {
        &self.threads[id.0 as usize]
    }

    /// The innermost frame of a stack and the stack of its caller; `None` for a root.
    pub fn split(&self, stack: StackId) -> Option<(FrameId, StackId)> {
        let node = self.nodes.get_index(stack.0.checked_sub(ROOTS)? as usize)?;
        Some((FrameId(node.frame), StackId(node.caller)))
    }

    /// The frames of a stack, innermost first.
    pub fn walk(&self, mut stack: StackId) -> impl Iterator<Item = FrameId> {
        std::iter::from_fn(move || {
            let (frame, caller) = self.split(stack)?;
            stack = caller;
            Some(frame)
        })
    }

    /// Why a stack ended.
    pub fn stop(&self, mut stack: StackId) -> Stop {
        while let Some((_, caller)) = self.split(stack) {
            stack = caller;
        }
        Stop::ALL[stack.0 as usize]
    }

    /// How often each thread was met with each stack, by thread and stack.
    pub fn counted(&self) -> Vec<((ThreadId, StackId), u64)> {
        let mut all: Vec<_> = self
            .samples
            .iter()
            .map(|sample| (sample.thread, sample.stack))
            .collect();
        all.sort_unstable();
        all.chunk_by(|a, b| a == b)
            .map(|same| (same[0], same.len() as u64))
            .collect()
    }

    /// How many samples ended so.
    pub fn stopped(&self, stop: Stop) -> u64 {
        self.stopped[stop as usize]
    }

    /// How many frames of all samples were learned so.
    pub fn origins(&self, origin: Origin) -> u64 {
        self.origins[origin as usize]
    }

    /// The frames in code that frame areas describe.
    pub fn described(&self) -> Described {
        self.described
    }

    /// The names that frame areas gave to frames.
    pub fn described_names(&self) -> usize {
        let names = self
            .frames
            .iter()
            .filter_map(|located| match located.frame.place {
                Place::Described { name, .. } => name,
                _ => None,
            });
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    }

    /// The frames of all samples, each counted as often as it was sampled.
    pub fn frame_count(&self) -> u64 {
        self.origins.iter().sum()
    }

    /// How many different stacks were sampled.
    pub fn unique_stacks(&self) -> usize {
        let mut stacks: Vec<_> = self.samples.iter().map(|sample| sample.stack).collect();
        stacks.sort_unstable();
        stacks.dedup();
        stacks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(address: u64) -> Frame {
        Frame {
            place: Place::Kernel(address),
            origin: Origin::Kernel,
            is_return_address: false,
        }
    }

    fn sample(frames: &[u64], stop: Stop) -> Sample {
        Sample {
            pid: 7,
            tid: 8,
            time_ns: 9,
            comm: "work".into(),
            frames: frames.iter().copied().map(frame).collect(),
            stop,
        }
    }

    fn addresses(profile: &Profile, stack: StackId) -> Vec<u64> {
        let address = |id| match profile.frame(id).frame.place {
            Place::Kernel(address) | Place::Anonymous(address) | Place::Object(_, address) => {
                address
            }
            Place::Described { address, .. } => address,
        };
        profile.walk(stack).map(address).collect()
    }

    #[test]
    fn stacks_come_back_as_they_went_in() {
        let mut profile = Profile::default();
        let stacks: [&[u64]; 4] = [&[3, 2, 1], &[4, 2, 1], &[], &[1]];
        for stack in stacks {
            profile.add(sample(stack, Stop::Outermost));
        }
        for (taken, stack) in profile.samples().iter().zip(stacks) {
            assert_eq!(addresses(&profile, taken.stack), stack);
            assert_eq!(profile.stop(taken.stack), Stop::Outermost);
        }
        assert_eq!(profile.frames().len(), 4);
        assert_eq!(profile.nodes.len(), 4, "1, 1-2, 1-2-3, 1-2-4");
        assert_eq!(profile.unique_stacks(), 4);
        assert_eq!(profile.frame_count(), 7);
    }

    #[test]
    fn any_order_of_stacks_comes_back() {
        let mut profile = Profile::default();
        let mut random = 1u64;
        let mut below = |limit: u64| {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (random >> 33) % limit
        };
        let stacks: Vec<(Vec<u64>, Stop)> = (0..1000)
            .map(|_| {
                let depth = below(8);
                let frames = (0..depth).map(|_| below(3)).collect();
                (frames, Stop::ALL[below(3) as usize])
            })
            .collect();
        for (stack, stop) in &stacks {
            profile.add(sample(stack, *stop));
        }
        for (taken, (stack, stop)) in profile.samples().iter().zip(&stacks) {
            assert_eq!(&addresses(&profile, taken.stack), stack);
            assert_eq!(profile.stop(taken.stack), *stop);
        }
        let different: std::collections::HashSet<_> = stacks.iter().collect();
        assert_eq!(profile.unique_stacks(), different.len());
        assert_eq!(
            profile
                .counted()
                .iter()
                .map(|&(_, count)| count)
                .sum::<u64>(),
            1000
        );
    }

    #[test]
    fn a_cut_stack_is_not_the_complete_one() {
        let mut profile = Profile::default();
        profile.add(sample(&[1], Stop::Outermost));
        profile.add(sample(&[1], Stop::NoRow));
        profile.add(sample(&[1], Stop::NoRow));
        assert_eq!(profile.unique_stacks(), 2);
        assert_eq!(profile.stop(profile.samples()[1].stack), Stop::NoRow);
        assert_eq!(
            (
                profile.stopped(Stop::Outermost),
                profile.stopped(Stop::NoRow)
            ),
            (1, 2)
        );
    }

    #[test]
    fn anonymous_code_belongs_to_its_process() {
        let mut profile = Profile::default();
        let anonymous = Frame {
            place: Place::Anonymous(64),
            ..frame(0)
        };
        for pid in [1, 2, 1] {
            profile.add(Sample {
                pid,
                frames: vec![anonymous],
                ..sample(&[], Stop::Outermost)
            });
        }
        assert_eq!(
            profile
                .frames()
                .map(|(_, located)| located.pid)
                .collect::<Vec<_>>(),
            [1, 2]
        );
    }

    #[test]
    fn a_renamed_thread_is_told_apart() {
        let mut profile = Profile::default();
        profile.add(sample(&[], Stop::Outermost));
        profile.add(Sample {
            comm: "other".into(),
            ..sample(&[], Stop::Outermost)
        });
        profile.add(sample(&[], Stop::Outermost));
        assert_eq!(profile.threads().len(), 2);
        assert_eq!(size_of::<Taken>(), 16);
    }
}
