//! Where a frame came from.

macro_rules! origins {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// How the pc of a frame was learned. A guess never looks like a fact.
        ///
        /// The numbers are the BPF walker's too: the kernel crate prints its C header from [`Origin::ALL`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Origin { $($(#[$doc])* $variant = $number,)* }

        impl Origin {
            /// Every origin, in the order of their numbers.
            pub const ALL: &'static [Origin] = &[$(Origin::$variant,)*];

            /// The name used in outputs.
            pub const fn name(self) -> &'static str {
                match self { $(Origin::$variant => $name,)* }
            }

            /// The origin with this number, if there is one.
            pub const fn from_number(number: u8) -> Option<Origin> {
                match number { $($number => Some(Origin::$variant),)* _ => None }
            }
        }
    };
}

origins! {
    /// The thread's registers: the topmost frame.
    Registers = 0, "registers";
    /// A section that the process announced.
    Announced = 1, "announced";
    /// The `.sframe` section of the mapped file.
    File = 2, "file";
    /// Rows converted from the mapped file's `.eh_frame`.
    Converted = 3, "converted";
    /// A frame area that a JIT published.
    FrameArea = 4, "frame-area";
    /// A guess: the frame pointer chain, where nobody describes the code.
    FramePointer = 5, "frame-pointer";
    /// A frame of the kernel itself, by the kernel's own unwinder.
    Kernel = 6, "kernel";
}
