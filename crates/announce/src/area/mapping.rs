//! Areas in memory of their own.
//!
//! The memory is private to the process, not shared: after fork(2) parent and child generate different code at the same
//! addresses, and each has to describe its own. (The registry copies the registration at the same moment.) In a shared
//! mapping both would claim slots of one area, and each would describe the other's code.
//!
//! Its first page, with the header, is that of a file in memory all the same, for the file's name: `/memfd:sframe-area` in
//! `/proc/PID/maps` is how one finds it who did not hear the registration. The rest lies right behind, and is anonymous:
//! the header says how much it is. Who finds it takes it for registered if its magic is there: so that is written last,
//! right before the registration, and cleared before it is taken back.
#![allow(unsafe_code)]

use super::function::{CreateError, Options};
use super::layout::{Described, MAGIC};
use super::produce::Area;
use super::rule::encode;
use crate::register::Answer;
use crate::system;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32};

impl Area<'static> {
    /// Makes an area of the `length` bytes at `memory`.
    ///
    /// # Safety
    ///
    /// The memory is aligned to 8 bytes, can be read and written, holds zeros, and is used for nothing else from now on;
    /// and it outlives the area.
    pub unsafe fn at(
        memory: NonNull<u8>,
        length: usize,
        options: &Options,
    ) -> Result<Area<'static>, CreateError> {
        // SAFETY: the caller's promise; zeros are words, and nobody touches them but as atomics.
        let words = unsafe { core::slice::from_raw_parts(memory.cast().as_ptr(), length / 4) };
        Area::new(words, options)
    }
}

/// A frame area with memory of its own: unregisters, if it was registered, and unmaps when it is dropped.
#[derive(Debug)]
pub struct Mapped {
    area: Area<'static>,
    /// Whether the key may hold this area.
    held: AtomicBool,
}

impl Mapped {
    /// Maps memory and makes an area of it, which is not registered yet.
    pub fn new(options: &Options) -> Result<Mapped, CreateError> {
        let (described, _) = encode(&options.default_rule);
        Mapped::with_default(options, described)
    }

    /// The same, with the default rule in words.
    pub(super) fn with_default(
        options: &Options,
        described: Described,
    ) -> Result<Mapped, CreateError> {
        let len = options.area_len()?;
        // At most 2^30.
        let bytes = len as usize;
        let memory = system::map(c"sframe-area", bytes).map_err(CreateError::System)?;
        // SAFETY: new memory, of zeros, in whole pages.
        let words =
            unsafe { core::slice::from_raw_parts(memory.cast::<AtomicU32>().as_ptr(), bytes / 4) };
        match Area::with_default(words, options, described, len) {
            Ok(area) => {
                let mapped = Mapped {
                    area,
                    held: AtomicBool::new(false),
                };
                mapped.show(false);
                Ok(mapped)
            }
            Err(error) => {
                // SAFETY: there is no area that could use it.
                unsafe { system::unmap(memory, bytes) };
                Err(error)
            }
        }
    }

    /// Registers the area under its key.
    pub fn register(&self) -> Answer {
        self.show(true);
        self.heard(self.area.register())
    }

    /// Registers the area in the place of another one with the same key, at once: no walk sees the time between. It should
    /// describe everything by then that the other one does. If it is refused, the other one stays.
    pub fn take_over(&self, other: &Mapped) -> Answer {
        if other.area.key() != self.area.key() || !other.held.load(Relaxed) {
            return self.register();
        }
        // Whoever comes meanwhile finds the new one.
        self.show(true);
        other.show(false);
        let mut answer = self.area.replace();
        // Whoever answers now did not hear of the old one.
        if answer == Answer::Refused(crate::Refusal::UnknownKey) {
            answer = self.area.register();
        }
        if !matches!(answer, Answer::Refused(_)) {
            other.held.store(false, Relaxed);
        } else {
            other.show(true);
        }
        self.heard(answer)
    }

    /// Takes the registration back.
    pub fn unregister(&self) -> Option<Answer> {
        // What was refused is not registered, and the key may be somebody else's. Silence may have been listening.
        let held = self.held.swap(false, AcqRel);
        held.then(|| {
            self.show(false);
            self.area.unregister()
        })
    }

    /// See [`Area::reset`].
    pub fn reset(&mut self) {
        self.area.reset();
    }

    fn heard(&self, answer: Answer) -> Answer {
        match answer {
            // Unless it was held before.
            Answer::Refused(_) if !self.held.load(Relaxed) => self.show(false),
            Answer::Refused(_) => {}
            _ => self.held.store(true, Relaxed),
        }
        answer
    }

    /// Writes the first half of the magic, or clears it: nobody takes an area without it for one.
    fn show(&self, whole: bool) {
        let [a, b, c, d, ..] = MAGIC;
        let first = if whole {
            u32::from_ne_bytes([a, b, c, d])
        } else {
            0
        };
        if let Some(word) = self.area.words().first() {
            // A system call follows, which nothing passes.
            word.store(first, Release);
        }
    }
}

impl Deref for Mapped {
    type Target = Area<'static>;

    fn deref(&self) -> &Area<'static> {
        &self.area
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.unregister();
        let memory = NonNull::from(self.area.words()).cast();
        // SAFETY: the area ends here, and it is never given away.
        unsafe { system::unmap(memory, self.area.area_len() as usize) };
    }
}
