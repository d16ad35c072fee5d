//! Tables of real, broken and hostile files.

use framewalk::processes::{Lack, Objects, Table};
use framewalk_sframe::{Arch, Builder, CallerRule, Cfa, FunctionRows, Register, Row, Rule, Unwind};
use framewalk_walk::{Origin, Says, Stop};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, elf};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("framewalk-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn table(path: &Path) -> Table {
    let mut objects = Objects::default();
    let id = objects.add_file(File::open(path).unwrap(), path).unwrap();
    Table::build(&objects.get(id).source)
}

/// A program with three functions, built here.
fn program(scratch: &Scratch) -> PathBuf {
    let source = scratch.write(
        "program.c",
        b"#include <stdio.h>\nint leaf(int n) { return n + 1; }\n\
          __attribute__((noinline)) int middle(int n) { printf(\"%d\\n\", n); return leaf(n) * 2; }\n\
          int main(int n, char **v) { return middle(n); }\n",
    );
    let path = scratch.0.join("program");
    let gcc = Command::new("gcc")
        .args(["-O2", "-fno-inline", "-o"])
        .arg(&path)
        .arg(&source)
        .status()
        .unwrap();
    assert!(gcc.success());
    path
}

/// Where a symbol lies in the file, and how long it is.
fn symbol(path: &Path, name: &str) -> (u64, u64) {
    let bytes = fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.symbols().find(|s| s.name() == Ok(name)).unwrap();
    let header = elf::FileHeader64::<LittleEndian>::parse(&*bytes).unwrap();
    let segment = header
        .program_headers(LittleEndian, &*bytes)
        .unwrap()
        .iter()
        .find(|s| {
            let address = s.p_vaddr(LittleEndian);
            s.p_type(LittleEndian) == elf::PT_LOAD
                && (address..address + s.p_memsz(LittleEndian)).contains(&symbol.address())
        })
        .unwrap();
    (
        symbol.address() - segment.p_vaddr(LittleEndian) + segment.p_offset(LittleEndian),
        symbol.size(),
    )
}

fn caller(cfa: i32) -> Unwind {
    Unwind::Caller(CallerRule {
        cfa: Cfa::Value(Register(7), cfa),
        ra: Rule::AtCfa(-8),
        fp: Rule::Same,
        ra_signed: false,
    })
}

#[test]
fn a_program_is_keyed_by_file_offsets() {
    let scratch = Scratch::new("keyed");
    let path = program(&scratch);
    let table = table(&path);
    assert_eq!((table.origin, table.lack), (Origin::Converted, None));
    assert_eq!(table.notes, [""; 0]);
    let says = |name: &str, at: u64| table.find(symbol(&path, name).0 + at);
    let row = |unwind| Says::Row {
        unwind,
        signal: false,
        origin: Origin::Converted,
    };
    assert_eq!(says("leaf", 0), row(caller(8)));
    assert_eq!(says("_start", 0), row(Unwind::Outermost));
    assert!(matches!(says("main", 0), Says::Row { .. }));
    assert_eq!(
        table.find(0),
        Says::Stop(Stop::NoRow),
        "the ELF header is no code"
    );
    assert_eq!(table.find(u64::MAX), Says::Stop(Stop::NoRow));
    assert!(table.functions > 3 && table.rows > table.functions.into());
}

#[test]
fn the_loaders_entry_is_outermost() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let Some(path) = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|p| p.contains("/ld-"))
    else {
        println!("skipped: this test is linked statically");
        return;
    };
    let bytes = fs::read(path).unwrap();
    let table = table(Path::new(path));
    let entry = object::File::parse(&*bytes).unwrap().entry();
    // The text of ld.so lies at its own offset.
    let Says::Row { unwind, .. } = table.find(entry) else {
        panic!("{:?}", table.find(entry))
    };
    assert_eq!(unwind, Unwind::Outermost);
}

#[test]
fn a_signal_trampoline_reaches_behind_its_last_instruction() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let Some(path) = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|p| p.ends_with("/libc.so.6"))
    else {
        println!("skipped: this test is not linked with glibc");
        return;
    };
    let table = table(Path::new(path));
    let signal = |offset: u64| matches!(table.find(offset), Says::Row { signal: true, .. });
    // `mov $15, %rax; syscall` (rt_sigreturn); the thread stands behind it while it returns.
    let code = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(code.len()).position(|w| w == code).unwrap() as u64;
    let end = at + code.len() as u64;
    assert!(signal(at) && signal(end - 1) && signal(end) && !signal(end + 1));
}

#[test]
fn the_vdso_has_a_table() {
    let mut objects = Objects::default();
    let id = objects.add_vdso().unwrap();
    assert_eq!(objects.add_vdso().unwrap(), id);
    let table = Table::build(&objects.get(id).source);
    assert!(table.lack.is_none() && table.functions > 2, "{table:?}");
    assert!(
        objects
            .get(id)
            .build_id
            .as_ref()
            .is_some_and(|id| id.len() == 20)
    );
}

/// Adds an `.sframe` section to the program and gives it that address.
fn add_sframe(
    scratch: &Scratch,
    program: &Path,
    name: &str,
    address: u64,
    section: &[u8],
) -> PathBuf {
    let bytes = scratch.write("section", section);
    let path = scratch.0.join(name);
    let objcopy = Command::new("objcopy")
        .arg("--add-section")
        .arg(format!(".sframe={}", bytes.display()))
        .args([
            "--set-section-flags",
            ".sframe=alloc,readonly,data,contents",
        ])
        .args(["--change-section-address", &format!(".sframe={address:#x}")])
        .arg(program)
        .arg(&path)
        .output()
        .unwrap();
    assert!(objcopy.status.success(), "{objcopy:?}");
    path
}

#[test]
fn a_sound_and_complete_section_of_the_file_wins() {
    let scratch = Scratch::new("sframe");
    let program = program(&scratch);
    let bytes = fs::read(&program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let address = 0x10_0000;
    // One function over all code, with a rule that conversion would not find.
    let start = file.section_by_name(".init").unwrap().address();
    let end = file.section_by_name(".fini").unwrap();
    let end = end.address() + end.size();
    let whole = |start: u64| {
        let mut builder = Builder::new(Arch::Amd64);
        let row = Row {
            start: 0,
            unwind: caller(0x70),
        };
        builder.push(FunctionRows::new(start, (end - start) as u32, vec![row]));
        builder.finish(address).unwrap()
    };
    let leaf = |path: &Path| table(path).find(symbol(path, "leaf").0);
    let row = |unwind, origin| Says::Row {
        unwind,
        signal: false,
        origin,
    };

    let complete = add_sframe(&scratch, &program, "complete", address, &whole(start));
    assert_eq!(leaf(&complete), row(caller(0x70), Origin::File));

    let partial = add_sframe(
        &scratch,
        &program,
        "partial",
        address,
        &whole(symbol(&program, "leaf").0),
    );
    assert_eq!(leaf(&partial), row(caller(8), Origin::Converted));
    assert_eq!(
        table(&partial).notes,
        [".sframe passed over: it covers less than .eh_frame"]
    );

    let mut broken = whole(start);
    broken[2] = 9;
    let broken = add_sframe(&scratch, &program, "broken", address, &broken);
    assert_eq!(leaf(&broken), row(caller(8), Origin::Converted));
    assert!(
        table(&broken).notes[0].contains("unknown version 9"),
        "{:?}",
        table(&broken).notes
    );
}

#[test]
fn files_that_are_no_programs_say_why() {
    let scratch = Scratch::new("lack");
    let lack = |name: &str, bytes: &[u8]| table(&scratch.write(name, bytes)).lack;
    assert_eq!(lack("empty", b""), Some(Lack::NotElf));
    assert_eq!(lack("text", b"#!/bin/sh\nexec true\n"), Some(Lack::NotElf));
    assert_eq!(lack("magic", b"\x7fELF"), Some(Lack::NotElf));

    let program = fs::read(program(&scratch)).unwrap();
    let mut foreign = program.clone();
    foreign[4] = 1;
    foreign[18] = 3;
    assert_eq!(lack("i386", &foreign), Some(Lack::Foreign(1, 3)));
    let path = scratch.write("i386", &foreign);
    assert_eq!(table(&path).find(0x1000), Says::Stop(Stop::ForeignCode));
    foreign[4] = 2;
    foreign[18] = 183;
    assert_eq!(lack("aarch64", &foreign), Some(Lack::Foreign(2, 183)));

    let path = scratch.write("no-data", &program);
    let strip = Command::new("objcopy")
        .args(["-R", ".eh_frame", "-R", ".eh_frame_hdr"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(strip.success());
    let table = table(&path);
    assert_eq!(table.lack, Some(Lack::NoData));
    assert_eq!(table.find(0x1000), Says::Undescribed);
}

#[test]
fn cut_and_damaged_files_give_a_table_or_a_reason() {
    let scratch = Scratch::new("damaged");
    let program = fs::read(program(&scratch)).unwrap();
    for length in (0..program.len()).step_by(61) {
        let table = table(&scratch.write("cut", &program[..length]));
        assert!(table.lack.is_some(), "the section headers are at the end");
    }
    // One byte of the headers at a time.
    let header = elf::FileHeader64::<LittleEndian>::parse(&*program).unwrap();
    let sections = header.e_shoff(LittleEndian) as usize;
    for at in (0..0x40).chain(0x40..0x300).chain(sections..program.len()) {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = program.clone();
            bytes[at] = value;
            table(&scratch.write("damaged", &bytes));
        }
    }
}

#[test]
fn a_huge_sparse_section_is_not_believed() {
    let scratch = Scratch::new("sparse");
    let mut program = fs::read(program(&scratch)).unwrap();
    let file = object::File::parse(&*program).unwrap();
    let index = file.section_by_name(".eh_frame").unwrap().index().0;
    let header = elf::FileHeader64::<LittleEndian>::parse(&*program).unwrap();
    let size_at = header.e_shoff(LittleEndian) as usize + index * 64 + 32;
    program[size_at..size_at + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    let path = scratch.write("sparse", &program);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 41)
        .unwrap();
    assert_eq!(
        table(&path).lack,
        Some(Lack::Malformed("an unwind section"))
    );
}

#[test]
fn a_file_that_is_cut_short_after_it_was_opened() {
    let scratch = Scratch::new("shrinks");
    let path = program(&scratch);
    let mut objects = Objects::default();
    let id = objects.add_file(File::open(&path).unwrap(), &path).unwrap();
    let same = objects
        .add_file(File::open(&path).unwrap(), Path::new("/other/name"))
        .unwrap();
    assert_eq!(id, same);

    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"new", 0).unwrap();
    file.set_len(100).unwrap();
    let changed = objects.add_file(File::open(&path).unwrap(), &path).unwrap();
    assert_ne!(id, changed, "another size is another object");
    assert_eq!(
        Table::build(&objects.get(id).source).lack,
        Some(Lack::NotElf)
    );
}

#[test]
fn a_file_that_is_replaced_stays_what_it_was() {
    let scratch = Scratch::new("replaced");
    let path = program(&scratch);
    let mut objects = Objects::default();
    let id = objects.add_file(File::open(&path).unwrap(), &path).unwrap();
    let before = Table::build(&objects.get(id).source);
    fs::remove_file(&path).unwrap();
    File::create(&path)
        .unwrap()
        .write_all(b"something else")
        .unwrap();
    let after = Table::build(&objects.get(id).source);
    assert_eq!(before.section, after.section);
    assert!(after.lack.is_none());
}

#[test]
fn only_regular_files_are_objects() {
    let mut objects = Objects::default();
    let null = objects.add_file(File::open("/dev/null").unwrap(), Path::new("/dev/null"));
    assert_eq!(null.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    assert!(
        objects
            .add_file(File::open("/tmp").unwrap(), Path::new("/tmp"))
            .is_err()
    );
}
