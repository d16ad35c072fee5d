//! Names of code that processes generated, as they gave them: by frame areas, at the moment of a sample. So they stay
//! right when the code is freed, its memory used again, or its process gone.

use crate::sample::GeneratedName;
use crate::symbols::clean;
use ahash::RandomState;
use indexmap::IndexSet;

/// Names that are kept; further ones are counted, and their code has none.
const MAX_NAMES: usize = 1 << 20;
/// Bytes of them.
const MAX_BYTES: usize = 128 << 20;

/// The names met so far.
#[derive(Debug)]
pub struct Generated {
    names: IndexSet<String, RandomState>,
    /// Bytes that more names may have.
    room: usize,
    /// Names for which there was no room.
    pub lost: u64,
}

impl Default for Generated {
    fn default() -> Generated {
        Generated {
            names: IndexSet::default(),
            room: MAX_BYTES,
            lost: 0,
        }
    }
}

impl Generated {
    /// Takes a name in: bytes that are an allegation.
    pub fn add(&mut self, name: &[u8]) -> Option<GeneratedName> {
        let name = clean(&String::from_utf8_lossy(name));
        if name.is_empty() {
            return None;
        }
        if let Some(index) = self.names.get_index_of(&name) {
            return Some(GeneratedName(index as u32));
        }
        if self.names.len() >= MAX_NAMES || name.len() > self.room {
            self.lost += 1;
            return None;
        }
        self.room -= name.len();
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
    fn long_names_fill_the_room() {
        let mut names = Generated {
            room: 3 * 255,
            ..Generated::default()
        };
        let name = |number: u32| format!("{number:0255}").into_bytes();
        for number in 0..3 {
            assert!(names.add(&name(number)).is_some());
        }
        assert_eq!(names.add(&name(3)), None);
        assert_eq!((names.lost, names.len()), (1, 3));
        // Those that are there stay.
        assert_eq!(names.add(&name(1)), Some(GeneratedName(1)));
    }

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
