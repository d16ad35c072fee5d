//! A registration with an owner.

use crate::abi::{REPLACE, Refusal};
use crate::register::{Answer, announce, unregister};
use core::marker::PhantomData;

/// Keeps a section registered, and unregisters its key when dropped: for code that is generated, and goes away.
///
/// The key is this registration's own: whatever else is registered under it goes with it.
///
/// ```
/// # let (code, unwind_data) = ([0u8; 64], [0u8; 28]);
/// use framewalk_announce::Registration;
///
/// let key = code.as_ptr() as u64;
/// let registration = Registration::new(key, &unwind_data);
/// // Run the code; then, before it is freed:
/// drop(registration);
/// ```
#[derive(Debug)]
#[must_use = "dropped at once it unregisters at once"]
pub struct Registration<'section> {
    key: u64,
    answer: Answer,
    section: PhantomData<&'section [u8]>,
}

impl<'section> Registration<'section> {
    /// Registers a section.
    pub fn new(key: u64, section: &'section [u8]) -> Registration<'section> {
        Registration {
            key,
            answer: announce(key, section, 0),
            section: PhantomData,
        }
    }

    /// What was answered for the section that is registered, or that was not.
    pub fn answer(&self) -> Answer {
        self.answer
    }

    /// Registers another section in the place of this one, at once. If it is refused, the old one stays.
    pub fn replace(&mut self, section: &'section [u8]) -> Answer {
        let mut answer = match self.answer {
            Answer::Refused(_) => announce(self.key, section, 0),
            Answer::Accepted(_) | Answer::Nobody => announce(self.key, section, REPLACE),
        };
        // Whoever answers now did not hear of the old one.
        if answer == Answer::Refused(Refusal::UnknownKey) {
            answer = announce(self.key, section, 0);
        }
        if !matches!(answer, Answer::Refused(_)) {
            self.answer = answer;
        }
        answer
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        // What was refused is not registered, and the key may be somebody else's. Silence may have been listening.
        if !matches!(self.answer, Answer::Refused(_)) {
            unregister(self.key);
        }
    }
}
