//! The memory of a process that does not exist.

use std::ops::Range;

/// Regions of bytes, and what of them cannot be read just now.
#[derive(Debug, Clone, Default)]
pub(super) struct Bytes {
    regions: Vec<(u64, Vec<u8>)>,
    pub(super) gone: Vec<Range<u64>>,
}

impl Bytes {
    pub(super) fn add(&mut self, start: u64, bytes: Vec<u8>) {
        self.regions.push((start, bytes));
    }

    pub(super) fn regions(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.regions.iter().map(|(at, bytes)| (*at, &bytes[..]))
    }

    /// The bytes from `at` on, whoever may read them.
    pub(super) fn get_mut(&mut self, at: u64, len: usize) -> Option<&mut [u8]> {
        self.regions.iter_mut().find_map(|(start, bytes)| {
            let offset = usize::try_from(at.checked_sub(*start)?).ok()?;
            bytes.get_mut(offset..offset.checked_add(len)?)
        })
    }

    pub(super) fn put(&mut self, at: u64, word: u64) {
        if let Some(bytes) = self.get_mut(at, 8) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads all of it or nothing.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> bool {
        let Some(end) = at.checked_add(into.len() as u64) else {
            return false;
        };
        if self
            .gone
            .iter()
            .any(|gone| gone.start < end && at < gone.end)
        {
            return false;
        }
        let found = self.regions.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(at.checked_sub(*start)?).ok()?;
            bytes.get(offset..offset.checked_add(into.len())?)
        });
        found.map(|found| into.copy_from_slice(found)).is_some()
    }

    pub(super) fn word(&self, at: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.read(at, &mut word).then(|| u64::from_le_bytes(word))
    }
}
