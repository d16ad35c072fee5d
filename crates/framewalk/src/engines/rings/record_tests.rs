//! Records as the kernel writes them, built field by field, and broken ones.

use super::record::*;
use crate::processes::Device;
use perf_event_open_sys::bindings as sys;

/// Builds a record.
struct Builder(Vec<u8>);

impl Builder {
    fn new(kind: u32, misc: u16) -> Builder {
        Builder(Vec::new())
            .u32(kind)
            .bytes(&misc.to_ne_bytes())
            .bytes(&[0, 0])
    }

    fn bytes(mut self, bytes: &[u8]) -> Builder {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(self, value: u32) -> Builder {
        self.bytes(&value.to_ne_bytes())
    }

    fn u64(self, value: u64) -> Builder {
        self.bytes(&value.to_ne_bytes())
    }

    /// A name, padded to words like the kernel does.
    fn name(self, name: &[u8]) -> Builder {
        let padding = 8 - name.len() % 8;
        self.bytes(name).bytes(&vec![0; padding])
    }

    fn trailer(self, time: u64) -> Vec<u8> {
        self.u32(7).u32(8).u64(time).done()
    }

    fn done(mut self) -> Vec<u8> {
        let size = self.0.len() as u16;
        self.0[6..8].copy_from_slice(&size.to_ne_bytes());
        self.0
    }
}

fn sample_record(abi: u32, stack: &[u8], copied: u64) -> Vec<u8> {
    let mut record = Builder::new(sys::PERF_RECORD_SAMPLE, 0)
        .u64(0x1234)
        .u32(10)
        .u32(11)
        .u64(77);
    // Kernel context, two kernel addresses.
    record = record
        .u64(3)
        .u64(0u64.wrapping_sub(128))
        .u64(0xffff_ffff_8100_0000)
        .u64(0xffff_ffff_8100_0020);
    record = record.u64(abi.into());
    if abi != 0 {
        for value in 0x100..0x100 + 17 {
            record = record.u64(value);
        }
    }
    record = record.u64(stack.len() as u64);
    if !stack.is_empty() {
        record = record.bytes(stack).u64(copied);
    }
    record.done()
}

#[test]
fn a_sample_has_its_registers_by_dwarf_number() {
    let record = sample_record(sys::PERF_SAMPLE_REGS_ABI_64, &[1, 2, 3, 4, 5, 6, 7, 8], 5);
    assert_eq!(split(&record).collect::<Vec<_>>(), [(77, 0..record.len())]);
    let Some(Record::Sample(sample)) = read(&record) else {
        panic!()
    };
    assert_eq!(
        (sample.pid, sample.tid, sample.stack),
        (10, 11, &[1, 2, 3, 4, 5][..])
    );
    assert_eq!(
        sample.kernel,
        [0xffff_ffff_8100_0000, 0xffff_ffff_8100_0020]
    );
    let User::Registers(registers) = sample.user else {
        panic!()
    };
    // AX BX CX DX SI DI BP SP IP R8..R15 were given rising values.
    assert_eq!(
        (registers.fp, registers.sp, registers.pc),
        (0x106, 0x107, 0x108)
    );
    let full = registers.full.unwrap();
    assert_eq!(full[..4], [0x100, 0x103, 0x102, 0x101], "rax rdx rcx rbx");
    assert_eq!(full[4..8], [0x104, 0x105, 0x106, 0x107], "rsi rdi rbp rsp");
    assert_eq!(
        full[8..16],
        [0x109, 0x10a, 0x10b, 0x10c, 0x10d, 0x10e, 0x10f, 0x110]
    );
    assert_eq!(full[16], 0x108);
}

#[test]
fn samples_without_a_64_bit_user_side() {
    for (abi, user) in [
        (0, User::None),
        (sys::PERF_SAMPLE_REGS_ABI_32, User::Foreign),
    ] {
        let record = sample_record(abi, &[], 0);
        let Some(Record::Sample(sample)) = read(&record) else {
            panic!()
        };
        assert_eq!((sample.user, sample.stack), (user, &[][..]));
    }
}

#[test]
fn what_runs_where() {
    let map = Builder::new(sys::PERF_RECORD_MMAP2, 0)
        .u32(10)
        .u32(11)
        .u64(0x7000)
        .u64(0x2000)
        .u64(0x3000)
        .u32(254)
        .u32(3)
        .u64(99)
        .u64(1)
        .u32(5)
        .u32(2)
        .name(b"/usr/lib/libfoo.so")
        .trailer(5);
    let device = Device {
        major: 254,
        minor: 3,
    };
    let expected = RawMap {
        start: 0x7000,
        end: 0x9000,
        offset: 0x3000,
        device,
        inode: 99,
        path: b"/usr/lib/libfoo.so",
    };
    assert_eq!(
        read(&map),
        Some(Record::Map {
            pid: 10,
            map: expected
        })
    );

    let comm = |misc| {
        Builder::new(sys::PERF_RECORD_COMM, misc)
            .u32(10)
            .u32(11)
            .name(b"worker")
            .trailer(5)
    };
    assert_eq!(
        read(&comm(0)),
        Some(Record::Comm {
            pid: 10,
            tid: 11,
            exec: false,
            comm: b"worker"
        })
    );
    let exec = comm(sys::PERF_RECORD_MISC_COMM_EXEC as u16);
    assert_eq!(
        read(&exec),
        Some(Record::Comm {
            pid: 10,
            tid: 11,
            exec: true,
            comm: b"worker"
        })
    );

    let task = |kind| {
        Builder::new(kind, 0)
            .u32(10)
            .u32(9)
            .u32(12)
            .u32(8)
            .u64(5)
            .trailer(5)
    };
    let fork = Record::Fork {
        pid: 10,
        parent: 9,
        tid: 12,
        parent_tid: 8,
    };
    assert_eq!(read(&task(sys::PERF_RECORD_FORK)), Some(fork));
    assert_eq!(
        read(&task(sys::PERF_RECORD_EXIT)),
        Some(Record::Exit { pid: 10, tid: 12 })
    );

    let lost = Builder::new(sys::PERF_RECORD_LOST, 0)
        .u64(1)
        .u64(42)
        .trailer(5);
    assert_eq!(read(&lost), Some(Record::Lost(42)));
    let lost = Builder::new(sys::PERF_RECORD_LOST_SAMPLES, 0)
        .u64(43)
        .trailer(5);
    assert_eq!(read(&lost), Some(Record::Lost(43)));
    assert_eq!(read(&Builder::new(4711, 0).trailer(5)), Some(Record::Other));
}

#[test]
fn records_follow_each_other_until_one_is_broken() {
    let one = Builder::new(sys::PERF_RECORD_LOST, 0)
        .u64(1)
        .u64(42)
        .trailer(5);
    let mut bytes = [one.clone(), one.clone()].concat();
    let n = one.len();
    assert_eq!(
        split(&bytes).collect::<Vec<_>>(),
        [(5, 0..n), (5, n..2 * n)]
    );
    bytes.truncate(2 * n - 1);
    assert_eq!(split(&bytes).count(), 1);
    // A size of zero would never end.
    bytes[6..8].copy_from_slice(&[0, 0]);
    assert_eq!(split(&bytes).count(), 0);
}

#[test]
fn no_cut_or_changed_record_panics() {
    let stack = [0xaa; 64];
    let sample = sample_record(sys::PERF_SAMPLE_REGS_ABI_64, &stack, 64);
    for length in 0..sample.len() {
        assert_eq!(read(&sample[..length]), None, "{length}");
    }
    for at in 0..sample.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = sample.clone();
            changed[at] = value;
            let _ = read(&changed);
            let _ = split(&changed).count();
        }
    }
}
