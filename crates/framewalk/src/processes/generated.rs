//! Names of code that processes generated, as they gave them: by frame areas, at the moment of a sample. So they stay
//! right when the code is freed, its memory used again, or its process gone.

use crate::sample::GeneratedName;
use crate::symbols::clean;
use ahash::RandomState;
use indexmap::IndexSet;

/// Names that are kept; further ones are counted, and their code has none.
const MAX_NAMES: usize = 1 << 20;

/// The names met so far.
#[derive(Debug, Default)]
pub struct Generated {
    names: IndexSet<String, RandomState>,
    /// Names for which there was no room.
    pub lost: u64,
}

impl Generated {
    /// Takes a name in: bytes that are an allegation.
    pub fn add(&mut self, name: &[u8]) -> Option<GeneratedName> {
        let name = clean(&String::from_utf8_lossy(name));
        if name.is_empty() {
            return None;
        }
        if self.names.len() >= MAX_NAMES && !self.names.contains(&name) {
            self.lost += 1;
            return None;
        }
        Some(GeneratedName(self.names.insert_full(name).0 as u32))
    }

    /// A name.
    pub fn get(&self, name: GeneratedName) -> Option<&str> {
        self.names.get_index(name.0 as usize).map(String::as_str)
    }

    /// How many different names there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_kept_once() {
        let mut names = Generated::default();
        let first = names.add(b"one").unwrap();
        assert_eq!(names.add(b""), None);
        let second = names.add(b"two\n\xff").unwrap();
        assert_eq!(names.add(b"one"), Some(first));
        assert_eq!(names.get(first), Some("one"));
        assert!(!names.get(second).unwrap().contains('\n'));
        assert_eq!(names.len(), 2);
    }
}
