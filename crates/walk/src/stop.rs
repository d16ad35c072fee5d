//! Why a walk ended.

macro_rules! stops {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $text:literal;)*) => {
        /// The one reason why a stack ended. Only [`Stop::Outermost`] is a complete stack.
        ///
        /// The numbers are the BPF walker's too: the kernel crate prints its C header from [`Stop::ALL`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Stop { $($(#[$doc])* $variant = $number,)* }

        impl Stop {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Stop] = &[$(Stop::$variant,)*];

            /// The short name used in statistics, kebab-case.
            pub const fn name(self) -> &'static str {
                match self { $(Stop::$variant => $name,)* }
            }

            /// One clause for people.
            pub const fn text(self) -> &'static str {
                match self { $(Stop::$variant => $text,)* }
            }

            /// The reason with this number, if there is one.
            pub const fn from_number(number: u8) -> Option<Stop> {
                match number { $($number => Some(Stop::$variant),)* _ => None }
            }
        }
    };
}

stops! {
    /// A row said that no caller exists.
    Outermost = 0, "complete", "the outermost frame, by its unwind data";
    /// The limit of frames was reached.
    Limit = 1, "frame-limit", "more frames than the limit";
    /// A return address of zero where no row said that it would be.
    ZeroReturn = 2, "zero-return-address", "a return address of zero without unwind data saying so";
    /// The pc is in no executable mapping.
    NotCode = 3, "not-code", "the pc is in no executable mapping";
    /// The pc is in a mapped object that has unwind data, but none for this pc.
    NoRow = 4, "no-unwind-data", "no unwind data for this pc";
    /// Nobody describes this code, and what the frame pointer says does not check out.
    FramePointer = 5, "frame-pointer-broken", "no table for this code, and no sound frame pointer";
    /// The stack could not be read.
    ReadFault = 6, "read-fault", "the stack could not be read";
    /// The computed CFA is not above the stack pointer.
    CfaNotAbove = 7, "cfa-not-above", "the CFA is not above the stack pointer";
    /// The computed CFA is not aligned to a word, or implausibly far away.
    CfaBad = 8, "cfa-bad", "the CFA is misaligned or implausibly far";
    /// The same return address and CFA twice.
    Loop = 9, "loop", "the same return address and CFA twice";
    /// The row or section is malformed.
    BadRow = 10, "bad-row", "malformed unwind data";
    /// The row needs a register that is not known in this frame.
    RegisterUnknown = 11, "register-unknown", "the row needs a register that is known only in the topmost frame";
    /// The table of the object is not built yet.
    TablePending = 12, "table-pending", "the table of the object was not ready";
    /// The mappings changed while they were being read.
    MapsBusy = 13, "maps-busy", "the mappings changed while they were being read";
    /// A kernel thread: there is no user stack.
    KernelThread = 14, "kernel-thread", "a kernel thread has no user stack";
    /// The thread was ending: its address space was gone.
    Exited = 15, "exited", "the thread was ending, its address space gone";
    /// The recording ended before the thread returned to user mode.
    Pending = 16, "pending", "the recording ended before the thread returned to user mode";
    /// The copied part of the stack ended before the stack did.
    CopyEnded = 17, "copy-ended", "the copied part of the stack was too short";
    /// The object could not be opened any more.
    ObjectGone = 18, "object-gone", "the mapped file could not be opened any more";
    /// 32-bit or other code that the walker does not know.
    ForeignCode = 19, "foreign-code", "code of another machine or mode";
    /// The thread was in execve(2): the old program's stack is gone, the new one's not begun.
    Exec = 20, "exec", "the thread was in execve, between two programs";
    /// The announced section could not be read without waiting for a page.
    SectionUnreadable = 21, "section-unreadable", "the announced section could not be read";
    /// A frame area says that nobody can tell where the caller is.
    Opaque = 22, "opaque", "generated code whose caller cannot be told, as it says itself";
}

impl Stop {
    /// There was no user stack to walk, so none can be complete or incomplete.
    pub const fn without_user_stack(self) -> bool {
        matches!(self, Stop::KernelThread | Stop::Exited | Stop::Exec)
    }
}
