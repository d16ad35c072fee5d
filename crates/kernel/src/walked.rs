//! What one walk answered, from the state that it left.

use crate::Frame;
use framewalk_walk::Stop;

/// What a walk answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// Innermost first. Numbers of names are not kept: names are sent nowhere.
    pub frames: Vec<Frame>,
    /// Why it ended.
    pub stop: Stop,
    /// Where it stood.
    pub pc: u64,
    /// Its stack pointer.
    pub sp: u64,
    /// How often it read, where that is known.
    pub reads: u32,
}

impl Walked {
    /// From as many words as so many frames need.
    ///
    /// # Panics
    /// Where they are fewer or more, or the reason is none: a fault of the walk.
    pub(crate) fn new(words: &[u64], frames: u32, stop: u32, pc: u64, sp: u64) -> Walked {
        let mut words = words.iter().copied();
        let frames = (0..frames)
            .map(|_| Frame::from_words(|| words.next()).expect("as many words as frames need"))
            .collect();
        assert_eq!(words.next(), None, "words that no frame needs");
        let stop = u8::try_from(stop).ok().and_then(Stop::from_number);
        Walked {
            frames,
            stop: stop.expect("a reason"),
            pc,
            sp,
            reads: 0,
        }
    }
}
