//! The audit library, as it is installed, in programs of all kinds; somebody of ours answers in the kernel's place.

#[path = "../../announce/tests/supervisor/mod.rs"]
mod supervisor;
#[path = "../../announce/tests/without_std/mod.rs"]
mod without_std;

use framewalk_announce::abi::{REGISTER, UNREGISTER};
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use supervisor::{Call, Filter, Reply, supervised};

/// The library, built as its documentation says.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        without_std::build(&["build", "-p", "framewalk-audit"]).join("libframewalk_audit.so")
    })
}

fn fixture(name: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    crates.join("../../vectors/announce").join(name)
}

/// A directory of a test's own, empty.
fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("audit-{name}"));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn compile(source: &Path, program: &Path, more: &[&str]) {
    let status = Command::new("gcc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror"])
        .arg(source)
        .arg("-o")
        .arg(program)
        .args(more)
        .status();
    assert!(status.unwrap().success(), "gcc {}", source.display());
}

fn driver(directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/driver.c");
    let program = directory.join("driver");
    compile(&source, &program, &[]);
    program
}

/// So many copies of the libraries, each an object of its own for the loader.
fn copies(directory: &Path, count: usize) -> Vec<PathBuf> {
    let copy = |index: usize| {
        let original = ["calls.v3.so", "calls.v2.so"][index % 2];
        let path = directory.join(format!("copy-{index}-{original}"));
        std::fs::copy(fixture(original), &path).unwrap();
        path
    };
    (0..count).map(copy).collect()
}

/// Address and length of the section in a file.
fn sframe(path: &Path) -> (u64, u64) {
    let data = std::fs::read(path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let section = file.section_by_name(".sframe").unwrap();
    (section.address(), section.size())
}

/// Runs a program under the library; None, and a skip, where its calls cannot be heard.
fn audited(
    test: &str,
    filter: Filter,
    mut command: Command,
    answer: impl FnMut(&Call) -> Reply,
) -> Option<(Output, Vec<Call>)> {
    command.env("LD_AUDIT", library());
    match supervised(filter, || command.output().unwrap(), answer) {
        Ok(result) => Some(result),
        Err(why) => {
            println!("SKIPPED {test}: {why}");
            None
        }
    }
}

/// Answers like a registry that refuses nothing.
fn accepting() -> impl FnMut(&Call) -> Reply {
    let mut ids = 0;
    let mut held = BTreeMap::<u64, i64>::new();
    move |call| {
        if call.registers() {
            ids += 1;
            *held.entry(call.key).or_default() += 1;
            return Reply::Value(ids);
        }
        match held.remove(&call.key) {
            Some(count) => Reply::Value(count),
            None => Reply::Errno(libc::ENOENT),
        }
    }
}

/// What the driver said that it did, as the calls that this should make.
fn expected(output: &Output, section: impl Fn(u64) -> Vec<(u64, u64)>) -> Vec<Expected> {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    let line = |line: &str| {
        let mut words = line.split(' ');
        let what = words.next().unwrap();
        let mut number = || u64::from_str_radix(&words.next().unwrap()[2..], 16).unwrap();
        match what {
            "open" => Expected::Open(number(), section(number())),
            _ => Expected::Close(number()),
        }
    };
    said.lines().map(line).collect()
}

#[derive(Debug)]
enum Expected {
    /// The key, and what may be registered.
    Open(u64, Vec<(u64, u64)>),
    Close(u64),
}

impl Expected {
    fn is(&self, call: &Call) -> bool {
        match self {
            Expected::Open(key, sections) => {
                let [address, length, flags] = call.rest;
                (call.option, call.key, flags) == (REGISTER, *key, 0)
                    && sections.contains(&(address, length))
            }
            Expected::Close(key) => {
                (call.option, call.key, call.rest) == (UNREGISTER, *key, [0; 3])
            }
        }
    }
}

/// Where the section may be in a library of either version that is mapped at an address.
fn sections() -> impl Fn(u64) -> Vec<(u64, u64)> {
    let both = ["calls.v3.so", "calls.v2.so"].map(|name| sframe(&fixture(name)));
    move |bias| {
        both.map(|(address, length)| (bias + address, length))
            .into()
    }
}

fn assert_calls(calls: &[Call], expected: &[Expected]) {
    for (index, (call, expected)) in calls.iter().zip(expected).enumerate() {
        assert!(
            expected.is(call),
            "call {index}: {expected:x?}, but {call:x?}"
        );
    }
    assert_eq!(calls.len(), expected.len());
}

#[test]
fn the_library_needs_nobody_and_cannot_panic() {
    let hooks = ["la_objclose", "la_objopen", "la_version"];
    without_std::assert_alone(library(), &hooks);
}

#[test]
fn a_thousand_random_opens_and_closes_are_announced_exactly() {
    let name = "a_thousand_random_opens_and_closes_are_announced_exactly";
    let directory = directory("random");
    let mut command = Command::new(driver(&directory));
    command
        .args(["random", "4711", "1000"])
        .args(copies(&directory, 12));
    let Some((output, calls)) = audited(name, Filter::default(), command, accepting()) else {
        return;
    };
    let expected = expected(&output, sections());
    assert_calls(&calls, &expected);
    let closed = |expected: &&Expected| matches!(expected, Expected::Close(_));
    let closed = expected.iter().filter(closed).count();
    let left = expected.len() - 2 * closed;
    assert!(
        closed > 100 && left > 0,
        "{closed} closed, {left} left open"
    );
}

#[test]
fn objects_in_namespaces_of_their_own_are_announced() {
    let name = "objects_in_namespaces_of_their_own_are_announced";
    let directory = directory("namespaces");
    let mut command = Command::new(driver(&directory));
    command.arg("namespaces").args(copies(&directory, 6));
    if let Some((output, calls)) = audited(name, Filter::default(), command, accepting()) {
        let expected = expected(&output, sections());
        assert_eq!(expected.len(), 24);
        assert_calls(&calls, &expected);
    }
}

#[test]
fn it_goes_on_whatever_it_is_answered() {
    let name = "it_goes_on_whatever_it_is_answered";
    let directory = directory("answers");
    let program = driver(&directory);
    let copies = copies(&directory, 4);
    let run = |filter, reply: Reply| {
        let mut command = Command::new(&program);
        command.args(["random", "1", "100"]).args(&copies);
        audited(name, filter, command, move |_| reply)
    };
    // Nobody; a filter; and a kernel that has nothing to say because its question was refused.
    let unanswered = [
        (Filter::default(), Reply::Errno(libc::EINVAL)),
        (Filter::default(), Reply::Errno(libc::EPERM)),
        (
            Filter {
                refuses_questions: true,
                ..Filter::default()
            },
            Reply::Errno(libc::ENOSYS),
        ),
    ];
    for (filter, reply) in unanswered {
        let Some((output, calls)) = run(filter, reply) else {
            return;
        };
        assert_calls(&calls, &expected(&output, sections()));
    }
    // What is refused is not taken back.
    let Some((output, calls)) = run(Filter::default(), Reply::Errno(libc::EEXIST)) else {
        return;
    };
    let opened = |expected: &Expected| matches!(expected, Expected::Open(..));
    let expected = expected(&output, sections()).into_iter().filter(opened);
    assert_calls(&calls, &expected.collect::<Vec<_>>());
}

#[test]
fn a_program_s_own_section_is_announced() {
    let name = "a_program_s_own_section_is_announced";
    for program in ["caller.v3", "fixed.v3"] {
        let mut command = Command::new(fixture(program));
        command.arg(fixture("calls.v3.so"));
        let Some((output, calls)) = audited(name, Filter::default(), command, accepting()) else {
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let said: Vec<_> = calls
            .iter()
            .map(|call| (call.option, call.rest[1]))
            .collect();
        let (_, own) = sframe(&fixture(program));
        let (_, library) = sframe(&fixture("calls.v3.so"));
        // Not the program's own at the end: the registry ends, too.
        let expected = [(REGISTER, own), (REGISTER, library), (UNREGISTER, 0)];
        assert_eq!(said, expected, "{program}");
        assert_eq!(calls[1].key, calls[2].key);
    }
    // At fixed addresses it is known where.
    let mut command = Command::new(fixture("fixed.v3"));
    command.arg("nothing.so");
    if let Some((_, calls)) = audited(name, Filter::default(), command, accepting()) {
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].rest[0], sframe(&fixture("fixed.v3")).0);
    }
}

/// Runs a command with and without the library: the same output, the same end, and no calls.
fn assert_unnoticed(test: &str, filter: Filter, command: impl Fn() -> Command) -> Option<Output> {
    let plain = command().output().unwrap();
    let (output, calls) = audited(test, filter, command(), accepting())?;
    assert_eq!(output, plain, "{:?}", command());
    assert_eq!(calls, [], "{:?}", command());
    Some(output)
}

#[test]
fn programs_without_sframe_do_not_notice() {
    let name = "programs_without_sframe_do_not_notice";
    let shell = |script: &str| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    };
    let script = "/bin/true; echo out; echo err >&2; (exit 3) | cat; kill -TERM $$";
    if assert_unnoticed(name, Filter::default(), || shell(script)).is_none() {
        return;
    }
    assert_unnoticed(name, Filter::default(), || Command::new("/bin/true"));
    assert_unnoticed(name, Filter::default(), || Command::new("/bin/false"));
    let python = Path::new("/usr/bin/python3");
    if python.exists() {
        // Loads libraries, starts threads and programs.
        let script = "import ctypes, json, ssl, subprocess, threading\n\
             t = threading.Thread(target=print, args=(json.dumps(list(range(9))),)); t.start(); t.join()\n\
             print(subprocess.run(['/bin/echo', 'child'], capture_output=True).stdout)\n\
             raise SystemExit(7)";
        let command = || {
            let mut command = Command::new(python);
            command.args(["-c", script]);
            command
        };
        let output = assert_unnoticed(name, Filter::default(), command).unwrap();
        assert_eq!(output.status.code(), Some(7), "{output:?}");
    } else {
        println!("no {}", python.display());
    }
}

#[test]
fn static_programs_do_not_notice() {
    let name = "static_programs_do_not_notice";
    let directory = directory("static");
    let source = directory.join("static.c");
    std::fs::write(
        &source,
        "#include <stdio.h>\nint main(void) { puts(\"static\"); return 5; }\n",
    )
    .unwrap();
    let program = directory.join("static");
    compile(&source, &program, &["-static"]);
    if let Some(output) = assert_unnoticed(name, Filter::default(), || Command::new(&program)) {
        assert_eq!(
            (output.status.code(), &output.stdout[..]),
            (Some(5), &b"static\n"[..])
        );
    }
}

#[test]
fn set_user_id_programs_do_not_notice() {
    let name = "set_user_id_programs_do_not_notice";
    let directory = directory("set-user-id");
    if std::fs::metadata(&directory).unwrap().uid() != 0 {
        println!("SKIPPED {name}: only root can make such a program");
        return;
    }
    let source = directory.join("secure.c");
    // It opens a library that has .sframe, so that there would be something to announce.
    let text = "#include <dlfcn.h>\n#include <stdio.h>\n#include <sys/auxv.h>\n#include <unistd.h>\n\
        int main(int argc, char **argv)\n\
        { void *l = argc > 1 ? dlopen(argv[1], RTLD_NOW) : 0;\n\
          printf(\"%d %lu %d\\n\", (int)geteuid(), getauxval(AT_SECURE), l != 0); return 0; }\n";
    std::fs::write(&source, text).unwrap();
    let program = directory.join("secure");
    compile(&source, &program, &[]);
    let copy = &copies(&directory, 1)[0];
    let command = || {
        let mut command = Command::new(&program);
        command.arg(copy).uid(65534).gid(65534);
        command
    };
    // Such a program gains privileges only under a filter that lets it.
    let filter = Filter {
        lets_privileges: true,
        ..Filter::default()
    };
    // Before it may, it does notice: the test would see it.
    match audited(name, filter, command(), accepting()) {
        Some((output, calls)) if output.stdout == b"65534 0 1\n" => assert_eq!(calls.len(), 1),
        Some((output, _)) => {
            println!("SKIPPED {name}: others may not run programs there: {output:?}");
            return;
        }
        None => return,
    }
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    if command().output().unwrap().stdout != b"0 1 1\n" {
        println!("SKIPPED {name}: set-user-id has no effect there");
        return;
    }
    assert_unnoticed(name, filter, command);
}

#[test]
fn a_program_that_confines_itself_is_not_killed_at_its_end() {
    let name = "a_program_that_confines_itself_is_not_killed_at_its_end";
    let directory = directory("confined");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/confined.c");
    let program = directory.join("confined");
    compile(&source, &program, &[]);
    let mut command = Command::new(&program);
    command.arg(&copies(&directory, 1)[0]);
    if let Some((output, calls)) = audited(name, Filter::default(), command, accepting()) {
        assert_eq!(output.status.code(), Some(9), "{output:?}");
        assert_eq!(output.stdout, b"confined\n");
        assert_eq!(calls.len(), 1);
        assert!(calls[0].registers());
    }
}

/// A copy of the library with other bytes.
fn changed(path: PathBuf, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut data = std::fs::read(fixture("calls.v3.so")).unwrap();
    change(&mut data);
    std::fs::write(&path, data).unwrap();
    path
}

/// The program header of one kind, as a place in the file.
fn segment(data: &[u8], kind: u32, nth: usize) -> usize {
    let is = |at: &usize| data[*at..*at + 4] == kind.to_ne_bytes();
    let count = usize::from(u16::from_ne_bytes([data[56], data[57]]));
    (0..count)
        .map(|index| 64 + 56 * index)
        .filter(is)
        .nth(nth)
        .unwrap()
}

fn set(data: &mut [u8], at: usize, value: u64) {
    data[at..at + 8].copy_from_slice(&value.to_ne_bytes());
}

/// Runs `driver each` over files; what it prints is the same with the library and without.
fn calls_of_each(test: &str, directory: &Path, files: &[PathBuf]) -> Option<Vec<Call>> {
    let program = driver(directory);
    let command = || {
        let mut command = Command::new(&program);
        command.arg("each").args(files);
        command
    };
    let plain = command().output().unwrap();
    assert!(plain.status.success(), "{plain:?}");
    let reply = |call: &Call| match call.registers() {
        true => Reply::Errno(libc::EBADMSG),
        false => Reply::Errno(libc::ENOENT),
    };
    let (output, calls) = audited(test, Filter::default(), command(), reply)?;
    assert_eq!(output, plain);
    Some(calls)
}

#[test]
fn what_is_mapped_but_not_there_harms_nobody() {
    let name = "what_is_mapped_but_not_there_harms_nobody";
    let directory = directory("absent");
    const DATA: usize = 3;
    // The last PT_LOAD goes on behind the end of the file, and that is where .sframe is said to be.
    let file = changed(directory.join("absent.so"), |data| {
        let load = segment(data, object::elf::PT_LOAD.0, DATA);
        set(data, load + 32, 0x4000);
        set(data, load + 40, 0x4000);
        let sframe = segment(data, object::elf::PT_GNU_SFRAME.0, 0);
        set(data, sframe + 16, 0x6100);
    });
    if let Some(calls) = calls_of_each(name, &directory, &[file]) {
        let said: Vec<_> = calls
            .iter()
            .map(|call| (call.option, call.rest[1]))
            .collect();
        assert_eq!(said, [(REGISTER, sframe(&fixture("calls.v3.so")).1)]);
        assert_eq!(calls[0].rest[0] & 0xfff, 0x100);
    }
}

#[test]
fn odd_headers_and_sections_harm_nobody() {
    let name = "odd_headers_and_sections_harm_nobody";
    let directory = directory("odd");
    let (at, length) = sframe(&fixture("calls.v3.so"));
    let mut state = 88172645463325252u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let odd = |index: usize| {
        changed(directory.join(format!("odd-{index}.so")), |data| {
            let header = segment(data, object::elf::PT_GNU_SFRAME.0, 0);
            for _ in 0..1 + random() % 3 {
                // The header's address and length, or the section; neither is the loader's concern.
                let fields = [16, 32].map(|field| header + field + (random() % 3) as usize);
                let section = (at + random() % length) as usize;
                let place = [fields[0], fields[1], section][(random() % 3) as usize];
                data[place] = random() as u8;
            }
        })
    };
    let files: Vec<PathBuf> = (0..200).map(odd).collect();
    if let Some(calls) = calls_of_each(name, &directory, &files) {
        let odd = calls.iter().filter(|call| call.rest[1] != length).count();
        // Some are left out, some are announced for others to refuse.
        assert!((10..190).contains(&calls.len()), "{} calls", calls.len());
        assert!(odd > 0 && calls.iter().all(Call::registers));
    }
}
