//! The PROCMAP_QUERY ioctl of /proc/PID/maps (Linux 6.11 and later, uapi/linux/fs.h): one mapping for
//! the price of one system call, where the text costs as much as the process has mappings.
#![allow(unsafe_code)]

use super::maps::Device;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// struct procmap_query.
#[repr(C)]
#[derive(Debug, Default)]
struct Query {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const _: () = assert!(size_of::<Query>() == 104);

/// _IOWR('f', 17, struct procmap_query)
const PROCMAP_QUERY: libc::c_ulong =
    3 << 30 | (size_of::<Query>() as libc::c_ulong) << 16 | 0x66 << 8 | 17;
/// PROCMAP_QUERY_VMA_EXECUTABLE, as a flag of what is found.
const EXECUTABLE: u64 = 4;

/// A mapping as the kernel has it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vma {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) executable: bool,
    pub(super) offset: u64,
    pub(super) device: Device,
    pub(super) inode: u64,
}

/// The mapping that holds an address, asked of an open maps file.
pub(super) fn vma_at(maps: &File, address: u64) -> io::Result<Option<Vma>> {
    let mut query = Query {
        size: size_of::<Query>() as u64,
        query_addr: address,
        ..Query::default()
    };
    // SAFETY: the kernel reads and writes `size` bytes of the query, which has that many, and
    // nothing else: the sizes of name and build id are zero.
    if unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, &raw mut query) } < 0 {
        let error = io::Error::last_os_error();
        return match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Ok(None),
            _ => Err(error),
        };
    }
    let device = Device {
        major: query.dev_major,
        minor: query.dev_minor,
    };
    let Query {
        vma_start,
        vma_end,
        vma_flags,
        vma_offset,
        inode,
        ..
    } = query;
    let executable = vma_flags & EXECUTABLE != 0;
    Ok(Some(Vma {
        start: vma_start,
        end: vma_end,
        executable,
        offset: vma_offset,
        device,
        inode,
    }))
}
