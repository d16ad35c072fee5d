//! Records of a perf_event ring (perf_event_open(2), "MMAP layout"), for the sample type of
//! [`super::events`]: IP | TID | TIME | CALLCHAIN | REGS_USER | STACK_USER, with sample_id_all.
//!
//! The kernel wrote them, but names and addresses in them are the process's own; nothing is read
//! but through a bounded cursor.

use crate::processes::Device;
use framewalk_walk::Registers;
use framewalk_walk::arch::FULL;
use perf_event_open_sys::bindings as sys;

/// The user registers asked for: AX BX CX DX SI DI BP SP IP and R8 to R15, by their numbers in
/// arch/x86/include/uapi/asm/perf_regs.h.
pub(in crate::engines) const USER_REGISTERS: u64 = 0x1ff | 0xff << 16;
/// How many those are.
const REGISTERS: usize = USER_REGISTERS.count_ones() as usize;
/// DWARF numbers (AMD64 psABI figure 3.36) of those registers, in the order of their bits.
const DWARF: [usize; REGISTERS] = [0, 3, 2, 1, 4, 5, 6, 7, 16, 8, 9, 10, 11, 12, 13, 14, 15];

/// Bytes of the trailer that sample_id_all puts behind every other record: TID | TIME.
const TRAILER: usize = 16;
/// Callchain entries from here on are not addresses but contexts (enum perf_callchain_context).
const FIRST_CONTEXT: u64 = 0u64.wrapping_sub(4095);

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engines) enum Record<'a> {
    Sample(RawSample<'a>),
    Map {
        pid: u32,
        map: RawMap<'a>,
    },
    Comm {
        pid: u32,
        tid: u32,
        exec: bool,
        comm: &'a [u8],
    },
    Fork {
        pid: u32,
        parent: u32,
        tid: u32,
        parent_tid: u32,
    },
    Exit {
        pid: u32,
        tid: u32,
    },
    /// Records for which there was no room.
    Lost(u64),
    Throttled,
    Other,
}

/// A sample as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engines) struct RawSample<'a> {
    pub(in crate::engines) pid: u32,
    pub(in crate::engines) tid: u32,
    /// Kernel addresses, innermost first.
    pub(in crate::engines) kernel: Vec<u64>,
    pub(in crate::engines) user: User,
    /// The copied stack, from the stack pointer upwards.
    pub(in crate::engines) stack: &'a [u8],
}

/// The user registers of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engines) enum User {
    /// There is no user side: a kernel thread, or a thread that has given up its memory.
    None,
    /// A 32-bit thread.
    Foreign,
    Registers(Box<Registers>),
}

/// A new executable mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engines) struct RawMap<'a> {
    pub(in crate::engines) start: u64,
    pub(in crate::engines) end: u64,
    pub(in crate::engines) offset: u64,
    pub(in crate::engines) device: Device,
    pub(in crate::engines) inode: u64,
    pub(in crate::engines) path: &'a [u8],
}

/// Splits the bytes of a ring into records: their time and their range. What cannot be one ends it.
pub(in crate::engines) fn split(
    bytes: &[u8],
) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..)?;
        let size = usize::from(Header::read(&mut Cursor(rest))?.size);
        let record = rest.get(..size)?;
        let range = at..at + size;
        at += size;
        Some((time(record).unwrap_or(0), range))
    })
}

/// Whether a record is a sample.
pub(in crate::engines) fn is_sample(record: &[u8]) -> bool {
    Header::read(&mut Cursor(record)).is_some_and(|header| header.kind == sys::PERF_RECORD_SAMPLE)
}

/// When a record was written, CLOCK_MONOTONIC nanoseconds.
fn time(record: &[u8]) -> Option<u64> {
    let at = if is_sample(record) {
        24
    } else {
        record.len().checked_sub(8)?
    };
    Cursor(record.get(at..)?).u64()
}

/// Reads one record, or none where it is cut short.
pub(in crate::engines) fn read(record: &[u8]) -> Option<Record<'_>> {
    let mut cursor = Cursor(record);
    let header = Header::read(&mut cursor)?;
    if header.kind == sys::PERF_RECORD_SAMPLE {
        return sample(cursor).map(Record::Sample);
    }
    let length = cursor.0.len().checked_sub(TRAILER)?;
    let mut body = Cursor(cursor.take(length)?);
    Some(match header.kind {
        sys::PERF_RECORD_MMAP2 => {
            let (pid, _tid) = (body.u32()?, body.u32()?);
            let (start, length, offset) = (body.u64()?, body.u64()?, body.u64()?);
            let device = Device {
                major: body.u32()?,
                minor: body.u32()?,
            };
            let (inode, _generation, _protection, _flags) =
                (body.u64()?, body.u64()?, body.u32()?, body.u32()?);
            let map = RawMap {
                start,
                end: start.checked_add(length)?,
                offset,
                device,
                inode,
                path: body.name(),
            };
            Record::Map { pid, map }
        }
        sys::PERF_RECORD_COMM => {
            let exec = u32::from(header.misc) & sys::PERF_RECORD_MISC_COMM_EXEC != 0;
            Record::Comm {
                pid: body.u32()?,
                tid: body.u32()?,
                exec,
                comm: body.name(),
            }
        }
        sys::PERF_RECORD_FORK => {
            let (pid, parent, tid, parent_tid) =
                (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
            Record::Fork {
                pid,
                parent,
                tid,
                parent_tid,
            }
        }
        sys::PERF_RECORD_EXIT => {
            let (pid, _parent, tid) = (body.u32()?, body.u32()?, body.u32()?);
            Record::Exit { pid, tid }
        }
        sys::PERF_RECORD_LOST => {
            let (_event, lost) = (body.u64()?, body.u64()?);
            Record::Lost(lost)
        }
        sys::PERF_RECORD_LOST_SAMPLES => Record::Lost(body.u64()?),
        sys::PERF_RECORD_THROTTLE => Record::Throttled,
        _ => Record::Other,
    })
}

fn sample(mut body: Cursor<'_>) -> Option<RawSample<'_>> {
    let (_ip, pid, tid, _time) = (body.u64()?, body.u32()?, body.u32()?, body.u64()?);
    let entries = usize::try_from(body.u64()?).ok()?;
    let mut entries = Cursor(body.take(entries.checked_mul(8)?)?);
    let kernel = std::iter::from_fn(|| entries.u64())
        .filter(|&entry| entry < FIRST_CONTEXT)
        .collect();
    let user = match u32::try_from(body.u64()?).ok()? {
        sys::PERF_SAMPLE_REGS_ABI_NONE => User::None,
        abi => {
            let mut full = [0; FULL];
            for number in DWARF {
                *full.get_mut(number)? = body.u64()?;
            }
            let registers = Registers {
                pc: full[16],
                sp: full[7],
                fp: full[6],
                full: Some(full),
            };
            match abi {
                sys::PERF_SAMPLE_REGS_ABI_64 => User::Registers(Box::new(registers)),
                _ => User::Foreign,
            }
        }
    };
    let room = usize::try_from(body.u64()?).ok()?;
    let stack = match body.take(room)? {
        [] => &[],
        stack => stack.get(..usize::try_from(body.u64()?).ok()?)?,
    };
    Some(RawSample {
        pid,
        tid,
        kernel,
        user,
        stack,
    })
}

struct Header {
    kind: u32,
    misc: u16,
    /// Bytes of the whole record, at least those of the header.
    size: u16,
}

impl Header {
    fn read(cursor: &mut Cursor<'_>) -> Option<Header> {
        let kind = cursor.u32()?;
        let (misc, size) = (cursor.u16()?, cursor.u16()?);
        (size >= 8).then_some(Header { kind, misc, size })
    }
}

/// Reads numbers of this machine's byte order from the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    /// What is left, as far as the first zero byte.
    fn name(&self) -> &'a [u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}
