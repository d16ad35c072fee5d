//! Other people's walks of the same stacks, at some of the boundaries.

mod frame_pointer;
#[cfg(feature = "framehop")]
mod framehop;
mod inside;
mod libunwind;

use crate::amd64::Stepped;
use crate::judge::Judge;
use crate::machine::Boundary;
use std::io;
use std::path::Path;

/// Frames of one walk, at most.
const LIMIT: usize = 510;

/// What a walk found: the pcs of its frames, innermost first, and whether it ended without an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walked {
    /// Return addresses as they were found.
    pub frames: Vec<u64>,
    /// It came to what it took for the end.
    pub ended: bool,
}

/// A way to walk.
trait Peer {
    /// Walks, or says (by none) that it cannot be asked here. Some answer for several at once.
    fn walk(
        &mut self,
        machine: &mut Stepped,
        boundary: &Boundary,
        judge: &Judge,
    ) -> io::Result<Vec<Option<Walked>>>;
}

/// What walks of a peer were worth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Walks.
    pub asked: u64,
    /// Every frame, and no more.
    pub right: u64,
    /// Right as far as it went.
    pub early: u64,
    /// A frame that is not there.
    pub wrong: u64,
}

impl Share {
    /// Adds a walk, compared by pcs alone: not every peer tells of stack pointers.
    fn add(&mut self, walked: &Walked, mut truth: impl Iterator<Item = u64>) {
        self.asked += 1;
        for frame in &walked.frames {
            if truth.next() != Some(*frame) {
                self.wrong += 1;
                return;
            }
        }
        match walked.ended && truth.next().is_none() {
            true => self.right += 1,
            false => self.early += 1,
        }
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: Share) {
        self.asked += other.asked;
        self.right += other.right;
        self.early += other.early;
        self.wrong += other.wrong;
    }
}

/// All peers, for one program.
pub struct Peers {
    peers: Vec<Box<dyn Peer>>,
    /// Name and share of each.
    pub shares: Vec<(&'static str, Share)>,
    /// Those that are not here, and why.
    pub skipped: Vec<(&'static str, String)>,
}

impl Peers {
    /// Those that there are. `inside`: the library that was loaded into the program, if it was.
    pub fn new(inside: Result<(), String>) -> Peers {
        let mut peers = Peers {
            peers: vec![Box::new(frame_pointer::FramePointer)],
            shares: vec![("frame pointers", Share::default())],
            skipped: Vec::new(),
        };
        #[cfg(feature = "framehop")]
        peers.add(&["framehop"], Box::new(framehop::Framehop::default()));
        #[cfg(not(feature = "framehop"))]
        peers.skip(&["framehop"], "built without the feature `framehop`");
        match libunwind::Libunwind::load() {
            Ok(libunwind) => peers.add(&["libunwind"], Box::new(libunwind)),
            Err(why) => peers.skip(&["libunwind"], &why),
        }
        let names = &["glibc backtrace()", "libgcc _Unwind_Backtrace()"];
        match inside {
            Ok(()) => peers.add(names, Box::new(inside::Inside)),
            Err(why) => peers.skip(names, &why),
        }
        peers
    }

    fn add(&mut self, names: &[&'static str], peer: Box<dyn Peer>) {
        self.peers.push(peer);
        let shares = names.iter().map(|name| (*name, Share::default()));
        self.shares.extend(shares);
    }

    fn skip(&mut self, names: &[&'static str], why: &str) {
        let skipped = names.iter().map(|name| (*name, why.to_string()));
        self.skipped.extend(skipped);
    }

    /// Asks all of them at a boundary that the judge has looked at.
    pub fn ask(
        &mut self,
        machine: &mut Stepped,
        boundary: &Boundary,
        judge: &Judge,
    ) -> io::Result<()> {
        let registers = boundary.registers;
        let mut shares = self.shares.iter_mut();
        for peer in &mut self.peers {
            for answer in peer.walk(machine, boundary, judge)? {
                let Some((_, share)) = shares.next() else {
                    break;
                };
                if let Some(walked) = answer {
                    let truth = judge.truth(boundary.tid, registers.pc, registers.sp);
                    share.add(&walked, truth.map(|entry| entry.pc));
                }
            }
        }
        Ok(())
    }
}

/// Builds the library that [`inside`] needs in the program: to be preloaded.
pub fn build_inside(directory: &Path) -> Result<std::path::PathBuf, String> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/inside.c");
    let to = directory.join("inside.so");
    let flags = ["-O2", "-shared", "-fPIC", "-Wl,-z,now"];
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    crate::programs::compile("gcc", &flags, &from, &to).map(|()| to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_are_right_early_or_wrong() {
        let share = |frames: &[u64], ended| {
            let mut share = Share::default();
            let frames = frames.to_vec();
            share.add(&Walked { frames, ended }, [1, 2, 3].into_iter());
            (share.right, share.early, share.wrong)
        };
        assert_eq!(share(&[1, 2, 3], true), (1, 0, 0));
        assert_eq!(share(&[1, 2, 3], false), (0, 1, 0));
        assert_eq!(share(&[1, 2], true), (0, 1, 0));
        assert_eq!(share(&[1, 9, 3], true), (0, 0, 1));
        assert_eq!(share(&[1, 2, 3, 4], true), (0, 0, 1));
    }
}
