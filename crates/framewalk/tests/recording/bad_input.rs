//! Files that are gone, changed or wrong, and processes that are not there: a smaller profile or a clear
//! error, never a wrong frame, never a panic.

use super::recorded::{Recorded, framewalk, record, skip, words};
use super::targets::{self, Directory};
use super::torture;
use object::{Object, ObjectSection};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The torture program and its shared object, for a test to do to them what it likes.
fn copies(directory: &Directory) -> PathBuf {
    let from = targets::torture();
    std::fs::copy(
        from.with_file_name("plugin.so"),
        directory.path("plugin.so"),
    )
    .unwrap();
    let program = directory.path("torture");
    std::fs::copy(from, &program).unwrap();
    program
}

/// Records the phases of a program; every stack that has names is a known one.
fn record_program(test: &str, program: &Path, phases: &[&str]) -> Option<Recorded> {
    let mut arguments = words(&["--engine", "kernel", "-F", "997", "--"]);
    arguments.push(program.into());
    arguments.extend(words(&["400"]));
    arguments.extend(words(phases));
    let recorded = record(test, &arguments)?;
    assert!(!recorded.said.contains("panicked"), "{}", recorded.said);
    assert!(recorded.samples() > 20);
    Some(recorded)
}

/// Records a running copy of the program; `meanwhile` happens to its file before that.
fn record_running(test: &str, meanwhile: impl Fn(&Path)) {
    let directory = Directory::new();
    let program = copies(&directory);
    let mut command = Command::new(&program);
    command.args(["30000", "mixed"]).stdout(Stdio::null());
    // When this returns, the program has been executed.
    let running = Running(command.spawn().unwrap());
    meanwhile(&program);
    let mut arguments = words(&["--engine", "kernel", "-F", "997", "-d", "0.5", "-p"]);
    arguments.push(running.0.id().to_string().into());
    let Some(recorded) = record(test, &arguments) else {
        return;
    };
    assert!(!recorded.said.contains("panicked"), "{}", recorded.said);
    torture::check(&recorded);
    recorded.assert_complete(98);
    let named = recorded.samples_where(|stack| stack.has("m_leaf"));
    assert!(named * 10 > recorded.samples() * 8, "{named} with names");
}

#[test]
fn a_deleted_program_keeps_its_stacks_and_names() {
    let test = "a_deleted_program_keeps_its_stacks_and_names";
    record_running(test, |program| std::fs::remove_file(program).unwrap());
}

#[test]
fn a_replaced_program_keeps_its_stacks_and_names() {
    let test = "a_replaced_program_keeps_its_stacks_and_names";
    record_running(test, |program| {
        let other = program.with_file_name("other");
        std::fs::copy("/bin/sh", &other).unwrap();
        std::fs::rename(other, program).unwrap();
    });
}

#[test]
fn a_stripped_program_is_walked_all_the_same() {
    let test = "a_stripped_program_is_walked_all_the_same";
    let directory = Directory::new();
    let program = copies(&directory);
    let strip = Command::new("strip").arg(&program).status();
    assert!(strip.expect("strip is needed").success());
    if let Some(recorded) = record_program(test, &program, &["mixed", "recursion"]) {
        recorded.assert_complete(95);
        let deep = recorded.samples_where(|stack| stack.user.len() > 400);
        assert!(deep * 4 > recorded.samples(), "{deep}");
    }
}

/// The file's bytes, and where in them a section is.
fn with_section(program: &Path, section: &str) -> (Vec<u8>, usize, usize) {
    let bytes = std::fs::read(program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = file.section_by_name(section).unwrap();
    let (at, len) = section.file_range().unwrap();
    (bytes, at as usize, len as usize)
}

#[test]
fn a_file_cut_behind_what_is_loaded() {
    let test = "a_file_cut_behind_what_is_loaded";
    let directory = Directory::new();
    let program = copies(&directory);
    // Symbols and the table of sections come last.
    let (bytes, at, _) = with_section(&program, ".symtab");
    std::fs::write(&program, &bytes[..at + 100]).unwrap();
    if let Some(recorded) = record_program(test, &program, &["mixed"]) {
        let own = |name: &String| name.starts_with("m_") || name.starts_with("phase_");
        let named = recorded.samples_where(|stack| stack.user.iter().any(own));
        assert_eq!(named, 0, "names of a symbol table that is not there");
    }
}

/// Unwind data that is garbage: whatever is complete all the same is right.
fn garbage(test: &str, section: &str, byte: impl Fn(usize, u8) -> u8) {
    let directory = Directory::new();
    let program = copies(&directory);
    let (mut bytes, at, len) = with_section(&program, section);
    for (i, each) in bytes[at..at + len].iter_mut().enumerate() {
        *each = byte(i, *each);
    }
    std::fs::write(&program, bytes).unwrap();
    let Some(recorded) = record_program(test, &program, &["mixed", "library"]) else {
        return;
    };
    torture::check(&recorded);
    let (complete, cut) = (
        recorded.samples_where(|stack| stack.cut.is_none()),
        recorded.samples_where(|stack| stack.cut.is_some()),
    );
    println!("{complete} complete, {cut} cut");
}

#[test]
fn unwind_data_of_ones_only() {
    garbage("unwind_data_of_ones_only", ".eh_frame", |_, _| 0xff);
}

#[test]
fn unwind_data_that_ends_early() {
    garbage("unwind_data_that_ends_early", ".eh_frame", |i, byte| {
        if i < 400 { byte } else { 0 }
    });
}

#[test]
fn a_search_table_of_ones_only() {
    garbage("a_search_table_of_ones_only", ".eh_frame_hdr", |_, _| 0xff);
}

#[test]
fn a_program_of_another_machine() {
    let test = "a_program_of_another_machine";
    let directory = Directory::new();
    let (source, program) = (directory.path("small.c"), directory.path("small"));
    // exit(0) after a while; 32-bit programs need no C library for that.
    let text = "void _start(void) { for (volatile unsigned i = 0; i < 300000000; i++) ; \
                __asm__ volatile(\"int $0x80\" :: \"a\"(1), \"b\"(0)); }";
    std::fs::write(&source, text).unwrap();
    let gcc = Command::new("gcc")
        .args(["-m32", "-nostdlib", "-static", "-fno-pie", "-no-pie", "-o"])
        .args([&program, &source])
        .output()
        .unwrap();
    if !gcc.status.success() || !Command::new(&program).status().is_ok_and(|s| s.success()) {
        return skip(test, "32-bit programs cannot be built or run here");
    }
    let mut arguments = words(&["--engine", "kernel", "-F", "997", "--"]);
    arguments.push(program.into());
    if let Some(recorded) = record(test, &arguments) {
        let foreign = recorded.stats["stopped"]["foreign-code"].as_u64();
        assert!(
            foreign.unwrap_or(0) * 10 > recorded.samples() * 9,
            "{}",
            recorded.stats
        );
    }
}

#[test]
fn a_process_that_ended_and_was_not_collected() {
    let test = "a_process_that_ended_and_was_not_collected";
    let mut child = Command::new("true").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
    nothing_to_record(test, child.id());
    child.wait().unwrap();
}

#[test]
fn a_process_without_user_memory() {
    let kernel_threads = Path::new("/proc/2/comm");
    let test = "a_process_without_user_memory";
    match std::fs::read_to_string(kernel_threads) {
        Ok(name) if name.trim() == "kthreadd" => nothing_to_record(test, 2),
        _ => skip(test, "process 2 is not the kernel's"),
    }
}

/// An empty profile or a clear error.
fn nothing_to_record(test: &str, pid: u32) {
    let directory = Directory::new();
    let output = directory.path("x.folded");
    let mut arguments = words(&["-d", "0.3", "-o"]);
    arguments.push(output.clone().into());
    arguments.extend(words(&["-p", &pid.to_string()]));
    let run = framewalk(&arguments);
    let said = String::from_utf8_lossy(&run.stderr);
    println!("{test}: {}: {said}", run.status);
    assert!(!said.contains("panicked"));
    assert_eq!(run.status.success(), output.exists());
    assert!(run.status.code().is_some() && !said.is_empty());
}
