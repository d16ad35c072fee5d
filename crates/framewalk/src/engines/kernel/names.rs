//! Names of generated code, by the numbers that samples have for them.
//!
//! The kernel gives a name another number when it has forgotten the first one, and a process can make up names as fast as
//! it is sampled. So what is not asked for while many others come is forgotten here too: its frames have no name then.

use crate::sample::GeneratedName;
use ahash::RandomState;
use std::collections::HashMap;

/// Numbers that come before others are forgotten; up to twice as many are kept.
const YOUNG: usize = 1 << 19;

type Numbers = HashMap<u64, GeneratedName, RandomState>;

/// The numbers of late.
#[derive(Debug)]
pub(super) struct Names {
    young: Numbers,
    old: Numbers,
    most: usize,
}

impl Default for Names {
    fn default() -> Names {
        Names {
            young: Numbers::default(),
            old: Numbers::default(),
            most: YOUNG,
        }
    }
}

impl Names {
    pub(super) fn insert(&mut self, number: u64, name: GeneratedName) {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(number, name);
    }

    /// The name, which is then kept as if it had just come.
    pub(super) fn get(&mut self, number: u64) -> Option<GeneratedName> {
        if let Some(&name) = self.young.get(&number) {
            return Some(name);
        }
        let name = self.old.remove(&number)?;
        self.insert(number, name);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_use_stay_and_the_others_are_bounded() {
        let most = 100;
        let mut names = Names {
            most,
            ..Names::default()
        };
        let all = 5 * most as u64;
        for number in 1..=all {
            names.insert(number, GeneratedName(number as u32));
            assert_eq!(names.get(1), Some(GeneratedName(1)));
        }
        assert!(names.young.len() + names.old.len() <= 2 * most);
        assert_eq!(names.get(2), None);
        assert_eq!(names.get(all), Some(GeneratedName(all as u32)));
        assert_eq!(names.get(all + 1), None);
    }
}
