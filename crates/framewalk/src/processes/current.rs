//! The executable mappings of a process that is stopped now and runs in between.

use super::mappings::NewMapping;
use super::maps::{self, Line};
use super::vma_query::{Vma, vma_at};
use super::{Mappings, Objects};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;

/// The most of /proc/PID/maps that is read, bytes.
const MAX_TEXT: u64 = 64 << 20;

/// The mappings as they were read last, and the means to see whether they still are.
#[derive(Debug, Default)]
pub struct CurrentMappings {
    maps: Option<File>,
    text: Vec<u8>,
    /// As the kernel described the mappings, by address.
    vmas: Vec<Vma>,
    mappings: Mappings,
}

impl CurrentMappings {
    /// The mappings, as they were read last.
    pub fn mappings(&self) -> &Mappings {
        &self.mappings
    }

    /// Reads them. Files are opened only if something changed.
    pub fn read(&mut self, pid: u32, objects: &mut Objects) -> io::Result<()> {
        let mut text = Vec::with_capacity(self.text.len() + 4096);
        // For a process that has made an exec the old file is of no use.
        self.maps = Some(maps::open(pid)?);
        maps::open(pid)?.take(MAX_TEXT).read_to_end(&mut text)?;
        if text == self.text {
            return Ok(());
        }
        let (mut mappings, mut vmas) = (Mappings::default(), Vec::new());
        let mut result = Ok(());
        maps::parse(&*text, |line| {
            if line.executable && result.is_ok() {
                let Line {
                    start,
                    end,
                    executable,
                    offset,
                    device,
                    inode,
                    path,
                } = line;
                let new = NewMapping {
                    pid,
                    start,
                    end,
                    offset,
                    device,
                    inode,
                    path,
                };
                result = mappings.insert(new.open(objects));
                vmas.push(Vma {
                    start,
                    end,
                    executable,
                    offset,
                    device,
                    inode,
                });
            }
        })?;
        (self.text, self.vmas, self.mappings) = (text, vmas, mappings);
        result
    }

    /// The bounds of the mapping that holds an address, code or not, as the kernel has it now. An error where it cannot
    /// tell.
    pub fn bounds(&self, address: u64) -> io::Result<Option<Range<u64>>> {
        let maps = self.maps.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(vma_at(maps, address)?.map(|vma| vma.start..vma.end))
    }

    /// Whether the mappings of these addresses are still what they were when they were read. False
    /// where the kernel cannot tell (before Linux 6.11).
    pub fn are_as_read(&self, addresses: &[u64]) -> bool {
        let Some(maps) = &self.maps else { return false };
        addresses.iter().all(|&address| {
            let next = self.vmas.partition_point(|vma| vma.end <= address);
            let then = self.vmas.get(next).filter(|vma| vma.start <= address);
            vma_at(maps, address).is_ok_and(|now| now.filter(|now| now.executable).as_ref() == then)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags};

    #[test]
    fn a_changed_mapping_is_seen() {
        let mut objects = Objects::default();
        let mut current = CurrentMappings::default();
        let pid = std::process::id();
        let here = a_changed_mapping_is_seen as *const () as u64;
        assert!(!current.are_as_read(&[here]), "not read yet");
        current.read(pid, &mut objects).unwrap();
        if vma_at(current.maps.as_ref().unwrap(), here).is_err() {
            println!("skipped: PROCMAP_QUERY needs Linux 6.11");
            return;
        }
        assert!(current.are_as_read(&[here, 0, here]));
        let file = File::open("/proc/self/exe").unwrap();
        let protection = ProtFlags::READ | ProtFlags::EXEC;
        // SAFETY: a new mapping at an address of the kernel's choice, which nobody uses.
        #[allow(unsafe_code)]
        let new = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                4096,
                protection,
                MapFlags::PRIVATE,
                file,
                0,
            )
            .unwrap()
        };
        assert!(!current.are_as_read(&[here, new as u64]));
        current.read(pid, &mut objects).unwrap();
        assert!(current.are_as_read(&[here, new as u64]));
        // SAFETY: the mapping that was made above.
        #[allow(unsafe_code)]
        unsafe {
            rustix::mm::munmap(new, 4096).unwrap();
        }
        assert!(!current.are_as_read(&[new as u64]));
    }
}
