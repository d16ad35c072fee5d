//! A process of which nothing has to be true, and what holds for a walk of it. Property tests and fuzz targets ask the
//! same.

use framewalk_sframe::Unwind;
use framewalk_walk::arch::{Arch, FULL};
use framewalk_walk::{
    Code, Found, MAX_SWITCHES, Origin, READS_PER_FRAME, READS_PER_GUESS, Registers, Says, Start,
    Stop, walk,
};

/// Lowest address of the stack; whatever is below it is code.
pub(crate) const STACK: u64 = 0x7fff_0000;

/// A stopped thread: its registers, its stack, and what is said of its code.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its machine.
    pub(crate) arch: &'static Arch,
    /// What is said of an address: that at the address modulo the length. Never empty.
    pub(crate) code: Vec<Says>,
    pub(crate) stack: Vec<u64>,
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    pub(crate) fp: u64,
    pub(crate) full: Option<[u64; FULL]>,
    /// Most frames of the walk.
    pub(crate) limit: usize,
}

/// The code of a process of some machine.
struct Program<'a>(&'static Arch, &'a [Says]);

impl Code for Program<'_> {
    type Place = u64;

    fn arch(&self) -> &'static Arch {
        self.0
    }

    fn find(&mut self, pc: u64) -> Found<u64> {
        let says = self.1[pc as usize % self.1.len()];
        Found { place: pc, says }
    }
}

impl Process {
    /// Walks it.
    pub(crate) fn ends_and_climbs(self) {
        let Process {
            arch,
            code,
            stack,
            pc,
            sp,
            fp,
            full,
            limit,
        } = self;
        let mut reads = 0;
        let mut memory = |address: u64| {
            reads += 1;
            let Some(index) = address.checked_sub(STACK) else {
                // Code, as far as its bytes matter.
                return Some(if address.is_multiple_of(3) {
                    0xe8 << 24
                } else {
                    address << 8
                });
            };
            (index % 8 == 0).then(|| stack.get(index as usize / 8).copied())?
        };
        let mut program = Program(arch, &code);
        let mut frames = Vec::new();
        let start = Start::topmost(Registers { pc, sp, fp, full });
        let stop = walk(start, limit, &mut memory, &mut program, |frame| {
            frames.push(frame)
        });

        assert!(frames.len() <= limit);
        assert!(reads <= READS_PER_FRAME.max(READS_PER_GUESS) * frames.len());
        assert_eq!(limit == 0, frames.is_empty());
        if let Some(first) = frames.first() {
            assert_eq!(
                (first.pc, first.sp, first.origin),
                (pc, sp, Origin::Registers)
            );
        }
        let mut switches = 0;
        for (depth, pair) in frames.windows(2).enumerate() {
            assert!(pair[1].pc != 0);
            assert_eq!(pair[1].pc & arch.address_bits, pair[1].pc);
            assert!(pair[1].origin != Origin::FramePointer || arch.guesses);
            // Only signal rows have this origin here.
            let signal = pair[1].origin == Origin::Announced;
            assert_eq!(signal, !pair[1].is_return_address);
            // Only the topmost frame may have nothing on the stack, where all its registers are known.
            let empty = depth == 0 && full.is_some() && pair[1].sp == pair[0].sp;
            if pair[1].sp <= pair[0].sp && !empty {
                assert!(signal);
                switches += 1;
            }
            assert_eq!(pair[1].sp % arch.word, 0);
            assert!(pair[1].sp.checked_add(arch.save_area).is_some());
        }
        assert!(switches <= MAX_SWITCHES);
        match stop {
            Stop::Limit => assert_eq!(frames.len(), limit),
            Stop::Outermost => {
                let last = frames
                    .last()
                    .map(|frame| code[frame.place as usize % code.len()]);
                let outermost = matches!(
                    last,
                    Some(Says::Row {
                        unwind: Unwind::Outermost,
                        ..
                    })
                );
                assert!(outermost);
            }
            _ => {}
        }
    }
}
