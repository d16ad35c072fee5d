//! Records of the rings, from bytes. Layouts are those of `bpf/shared.h`, taken from the BTF of the
//! compiled object. Addresses are virtual; offsets are file offsets; times CLOCK_MONOTONIC nanoseconds.

use crate::skeleton::types;
use framewalk_walk::{Origin, Stop};
use std::mem::offset_of;

/// Which file a mapping shows, as the kernel identifies it. Opaque: hand back what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Inode number.
    pub inode: u64,
    /// Modification time, seconds.
    pub mtime_sec: i64,
    /// Bytes.
    pub size: u64,
    /// Device, in the kernel's own encoding (`major << 20 | minor`).
    pub device: u32,
    /// Modification time, nanoseconds.
    pub mtime_nsec: u32,
}

impl Key {
    /// The key of the vdso, which no file has.
    pub const VDSO: Key = Key {
        inode: 0,
        mtime_sec: 0,
        size: 0,
        device: u32::MAX,
        mtime_nsec: 0,
    };

    pub(crate) fn raw(self) -> types::fw_key {
        types::fw_key {
            inode: self.inode,
            mtime_sec: self.mtime_sec,
            size: self.size,
            device: self.device,
            mtime_nsec: self.mtime_nsec,
        }
    }
}

const _: () = assert!(size_of::<types::fw_key>() == 32 && size_of::<types::fw_object>() == 32);

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramePlace {
    /// A kernel address.
    Kernel(u64),
    /// A registered object, by its number, and a file offset.
    Object(u32, u64),
    /// Any other user address.
    Address(u64),
    /// The same, in code that a frame area describes: the number of its name ([`Record::Name`]; 0: none), and
    /// whether it belongs to a run time.
    Described(u64, u64, bool),
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where its pc lies.
    pub place: FramePlace,
    /// How the pc was learned.
    pub origin: Origin,
    /// The pc is a return address.
    pub is_return_address: bool,
}

impl Frame {
    /// A user frame's words: origin 4 bits, object flag, return flag, then id and offset, or a flag and an address; where
    /// the flag is set, the next word says more.
    pub(crate) fn from_words(mut words: impl FnMut() -> Option<u64>) -> Option<Frame> {
        let word = words()?;
        // An address as wide as the processor has any: the last bit stands for those above.
        let address = ((word << 7).cast_signed() >> 7).cast_unsigned();
        let origin = Origin::from_number((word >> 60) as u8).unwrap_or(Origin::FramePointer);
        let place = if word >> 59 & 1 == 1 {
            FramePlace::Object((word >> 38) as u32 & 0xf_ffff, word & ((1 << 38) - 1))
        } else if word >> 57 & 1 == 1 {
            let more = words()?;
            FramePlace::Described(address, more & !(1 << 63), more >> 63 == 1)
        } else {
            FramePlace::Address(address)
        };
        Some(Frame {
            place,
            origin,
            is_return_address: word >> 58 & 1 == 1,
        })
    }
}

/// Where an unfinished walk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// Program counter of the frame that comes next.
    pub pc: u64,
    /// Its stack pointer.
    pub sp: u64,
    /// Its frame pointer.
    pub fp: u64,
    /// The pc is a return address.
    pub is_return_address: bool,
    /// It is the topmost frame.
    pub top: bool,
    /// How the pc was learned.
    pub origin: Origin,
}

/// A sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRecord {
    /// Process id, as the initial pid namespace counts.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Processor.
    pub cpu: u32,
    /// When the event came.
    pub time_ns: u64,
    /// Joins stack pieces and linked samples with this one.
    pub id: u64,
    /// Only kernel frames here; the user frames come in the sample with the same id.
    pub linked: bool,
    /// Walked in task work.
    pub deferred: bool,
    /// Pieces of stack that were sent before.
    pub copied: u16,
    /// Thread name.
    pub comm: String,
    /// Innermost first, kernel frames before user frames.
    pub frames: Vec<Frame>,
    /// Why the user stack ended.
    pub stop: Stop,
    /// Where the walk stood when it ended.
    pub resume: Resume,
}

/// A piece of stack of an unfinished sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackRecord {
    /// Of the sample with this id.
    pub id: u64,
    /// Of the first byte.
    pub address: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The registers of the topmost frame of an unfinished sample, by DWARF number.
pub type Registers = [u64; 16];

/// An object that the walker met and nobody registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantRecord {
    /// A process that maps it.
    pub pid: u32,
    /// Its key.
    pub key: Key,
    /// The mapping: first address.
    pub start: u64,
    /// The mapping: end address.
    pub end: u64,
}

/// What the rings carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A sample.
    Sample(SampleRecord),
    /// A piece of stack, before its sample.
    Stack(StackRecord),
    /// Registers of an unfinished sample, before it: sample id and values.
    Registers(u64, Registers),
    /// A request for an object.
    Want(WantRecord),
    /// The name of generated code, by the number that samples have after it.
    Name(u64, Vec<u8>),
}

/// A bounded view of a record. No method can panic.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }
    fn u64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_ne_bytes)
    }
    fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_ne_bytes)
    }
    fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_ne_bytes)
    }
}

impl Record {
    /// The record in `bytes`, if it is one.
    pub fn parse(bytes: &[u8]) -> Option<Record> {
        let view = Bytes(bytes);
        match types::fw_record_kind(view.u32(0)?) {
            types::fw_record_kind::FW_RECORD_SAMPLE => sample(view).map(Record::Sample),
            types::fw_record_kind::FW_RECORD_STACK => stack(view).map(Record::Stack),
            types::fw_record_kind::FW_RECORD_REGISTERS => registers(view),
            types::fw_record_kind::FW_RECORD_WANT => want(view).map(Record::Want),
            types::fw_record_kind::FW_RECORD_NAME => name(view),
            _ => None,
        }
    }
}

macro_rules! at {
    ($type:ident . $field:ident) => {
        offset_of!(types::$type, $field)
    };
}

fn sample(view: Bytes<'_>) -> Option<SampleRecord> {
    let flags = view.u32(at!(fw_sample.flags))?;
    let kernel = view.u16(at!(fw_sample.num_kernel))? as usize;
    let user = view.u16(at!(fw_sample.num_user))? as usize;
    let comm: [u8; 16] = view.array(at!(fw_sample.comm))?;
    let comm = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut frames = Vec::with_capacity(kernel + user);
    let mut at = size_of::<types::fw_sample>();
    let mut word = || {
        let word = view.u64(at);
        at += 8;
        word
    };
    for index in 0..kernel {
        frames.push(Frame {
            place: FramePlace::Kernel(word()?),
            origin: Origin::Kernel,
            is_return_address: index > 0,
        });
    }
    for _ in 0..user {
        frames.push(Frame::from_words(&mut word)?);
    }
    Some(SampleRecord {
        pid: view.u32(at!(fw_sample.pid))?,
        tid: view.u32(at!(fw_sample.tid))?,
        cpu: view.u32(at!(fw_sample.cpu))?,
        time_ns: view.u64(at!(fw_sample.time))?,
        id: view.u64(at!(fw_sample.id))?,
        linked: flags & types::fw_sample_flags::FW_SAMPLE_LINKED.0 != 0,
        deferred: flags & types::fw_sample_flags::FW_SAMPLE_DEFERRED.0 != 0,
        copied: view.u16(at!(fw_sample.copied))?,
        comm: String::from_utf8_lossy(comm).into_owned(),
        frames,
        stop: Stop::from_number(u8::try_from(view.u16(at!(fw_sample.stop))?).ok()?)?,
        resume: Resume {
            pc: view.u64(at!(fw_sample.pc))?,
            sp: view.u64(at!(fw_sample.sp))?,
            fp: view.u64(at!(fw_sample.fp))?,
            is_return_address: flags & types::fw_sample_flags::FW_SAMPLE_RETURN.0 != 0,
            top: flags & types::fw_sample_flags::FW_SAMPLE_TOP.0 != 0,
            origin: Origin::from_number(u8::try_from(view.u32(at!(fw_sample.origin))?).ok()?)?,
        },
    })
}

fn stack(view: Bytes<'_>) -> Option<StackRecord> {
    let len = view.u32(at!(fw_stack.len))? as usize;
    let body = size_of::<types::fw_stack>();
    Some(StackRecord {
        id: view.u64(at!(fw_stack.id))?,
        address: view.u64(at!(fw_stack.address))?,
        bytes: view.0.get(body..body.checked_add(len)?)?.to_vec(),
    })
}

fn registers(view: Bytes<'_>) -> Option<Record> {
    let mut values = [0; 16];
    for (number, value) in values.iter_mut().enumerate() {
        *value = view.u64(at!(fw_registers.values) + number * 8)?;
    }
    Some(Record::Registers(view.u64(at!(fw_registers.id))?, values))
}

fn name(view: Bytes<'_>) -> Option<Record> {
    let len = view.u32(at!(fw_name.len))? as usize;
    let bytes = view.0.get(at!(fw_name.bytes)..)?.get(..len)?;
    Some(Record::Name(view.u64(at!(fw_name.number))?, bytes.into()))
}

fn want(view: Bytes<'_>) -> Option<WantRecord> {
    let key = at!(fw_want.key);
    Some(WantRecord {
        pid: view.u32(at!(fw_want.pid))?,
        key: Key {
            inode: view.u64(key + at!(fw_key.inode))?,
            mtime_sec: view.u64(key + at!(fw_key.mtime_sec))? as i64,
            size: view.u64(key + at!(fw_key.size))?,
            device: view.u32(key + at!(fw_key.device))?,
            mtime_nsec: view.u32(key + at!(fw_key.mtime_nsec))?,
        },
        start: view.u64(at!(fw_want.start))?,
        end: view.u64(at!(fw_want.end))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut anywhere, a record is refused or parsed, never a panic; whole, it says what was written.
    #[test]
    fn cut_records_are_refused() {
        let mut bytes = vec![0u8; size_of::<types::fw_sample>()];
        bytes[..4].copy_from_slice(&1u32.to_ne_bytes());
        let user = at!(fw_sample.num_user);
        bytes[user..user + 2].copy_from_slice(&2u16.to_ne_bytes());
        let object = 3u64 << 60 | 1 << 59 | 1 << 58 | 5 << 38 | 0x1234;
        bytes.extend(object.to_ne_bytes());
        bytes.extend(0x7fff_1234u64.to_ne_bytes());
        let Some(Record::Sample(sample)) = Record::parse(&bytes) else {
            panic!("not a sample");
        };
        assert_eq!(sample.frames[0].place, FramePlace::Object(5, 0x1234));
        assert!(sample.frames[0].is_return_address);
        assert_eq!(sample.frames[0].origin, Origin::Converted);
        assert_eq!(sample.frames[1].place, FramePlace::Address(0x7fff_1234));
        for end in 0..bytes.len() {
            assert_eq!(Record::parse(&bytes[..end]), None, "cut at {end}");
        }
    }

    /// Every kind, every length, every filling.
    #[test]
    fn arbitrary_bytes_never_panic() {
        for kind in 0..6u32 {
            for filling in [0u8, 1, 0x7f, 0x80, 0xff] {
                for length in (0..400).chain([5000]) {
                    let mut bytes = vec![filling; length];
                    if length >= 4 {
                        bytes[..4].copy_from_slice(&kind.to_ne_bytes());
                    }
                    let _ = Record::parse(&bytes);
                }
            }
        }
    }
}
