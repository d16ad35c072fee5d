//! What each call is answered: docs/abi.md's checks in their order, by each hook that this kernel allows.

use crate::sections::{HEADER, PCREL, SORTED, Shape, put, section, written};
use crate::stage::{Actor, Call, PAGE, Stage};
use framewalk_announce::abi::{KIND_SECTION, REPLACE, USER_END};
use framewalk_kernel::{Hook, Registry};
use libc::{EBADMSG, EEXIST, EFAULT, EINVAL, ENOENT, EPROTONOSUPPORT};

/// Memory of the puppets; behind it nothing is mapped.
const AT: u64 = 0x1000_0000_0000;
const END: u64 = AT + 16 * PAGE;
/// Texts that their sections describe. Nobody asks whether there is any.
const TEXT: u64 = AT + 0x1000_0000;

#[test]
fn every_hook_answers_alike() {
    const TEST: &str = "every_hook_answers_alike";
    let mut refused = Vec::new();
    for &hook in Hook::ALL {
        match Stage::load(TEST, || Registry::load(&[hook])) {
            Ok(stage) => all_answers(stage),
            Err(why) => refused.push((hook, why)),
        }
    }
    for (hook, why) in &refused {
        let why = why.lines().next().unwrap_or_default();
        println!("skipped hook: {}: {why}", hook.name());
    }
    if refused.len() == Hook::ALL.len() {
        println!("SKIPPED {TEST}: no hook is allowed");
    }
}

fn all_answers(mut stage: Stage) {
    let mut actor = stage.puppet();
    actor.map_file(AT, END - AT);
    ids_and_counts(&mut stage, &mut actor);
    for version in [2, 3] {
        every_errno(&mut stage, &mut actor, version);
    }
    absent_pages(&mut stage, &mut actor);
    stage.check();
    stage.exit(actor);
    stage.finish();
}

/// Writes a section and registers it.
fn register(stage: &mut Stage, actor: &mut Actor, key: u64, at: u64, bytes: &[u8]) -> i64 {
    actor.write(at, bytes);
    stage.ask(actor, Call::register(key, at, bytes.len() as u64))
}

fn ids_and_counts(stage: &mut Stage, actor: &mut Actor) {
    let mut ids = Vec::new();
    for n in 0..20 {
        let at = AT + n * 0x100;
        let bytes = section(at, TEXT + n * 0x1000, 0x1000);
        // Three keys: any number is one.
        let key = [0, 1, u64::MAX][n as usize % 3];
        ids.push(register(stage, actor, key, at, &bytes));
    }
    assert!(ids.iter().all(|&id| (1..1 << 31).contains(&id)), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20, "no id twice");
    stage.check();
    let replace = Call::replace(1, AT + 0x100, 0x80);
    actor.write(AT + 0x100, &section(AT + 0x100, TEXT + 0x800_0000, 1));
    assert!(stage.ask(actor, replace) > 0);
    let unregister = |key| Call::unregister(key);
    for (key, count) in [(0, 7), (1, 1), (u64::MAX, 6)] {
        assert_eq!(stage.ask(actor, unregister(key)), count);
        assert_eq!(stage.ask(actor, unregister(key)), (-ENOENT).into());
    }
    // An option is an int: the upper half of its register does not matter.
    let mut upper = Call::register(5, AT, section(AT, TEXT, 1).len() as u64);
    upper.option |= 0xabcd << 32;
    actor.write(AT, &section(AT, TEXT, 1));
    assert!(stage.ask(actor, upper) > 0);
    assert_eq!(stage.ask(actor, unregister(5)), 1);
    stage.check();
}

/// A number that is put into a section: offset, bytes, value.
type Fault = (usize, usize, u64);

/// In the order of docs/abi.md: each call has the fault that is named, and wherever it can the next one, too.
fn every_errno(stage: &mut Stage, actor: &mut Actor, version: u8) {
    let sound = Shape::new(
        version,
        SORTED | PCREL,
        &[(TEXT, 0x10), (TEXT + 0x100, 0x20)],
    );
    let bytes = sound.bytes(AT);
    let length = bytes.len() as u64;
    let (first, last) = (sound.entry_at(0), sound.entry_at(1));
    // Bytes of the start of a function.
    let start = if version == 2 { 4 } else { 8 };
    let call = |key, address, length, how| {
        let mut call = Call::register(key, address, length);
        call.arguments[3] = how;
        call
    };
    actor.write(AT, &bytes);
    let mut refused = |stage: &mut Stage, what: &str, call, errno: i32| {
        assert_eq!(
            stage.ask(actor, call),
            (-errno).into(),
            "V{version}: {what}"
        );
    };

    // 1 and 2, arguments.
    for how in [2, KIND_SECTION | 0x200, REPLACE | 2, 1 << 32, u64::MAX] {
        refused(stage, "kind", call(1, AT, length, how), EINVAL);
    }
    for (address, length) in [
        (0, length),
        (0, 0),
        (AT, 0),
        (AT, 1 << 32),
        (AT, u64::MAX),
        (AT, 0u64.wrapping_sub(AT)),
        (USER_END - 0x80, 0x81),
        (USER_END, length),
        (0xffff_8880_0000_0000, length),
        (0xffff_ffff_8100_0000, length),
        (0xffff_ffff_ff60_0000, length),
        (u64::MAX, 1),
        (u64::MAX - 0x10, 0x20),
        (1 << 63, length),
    ] {
        let what = format!("{length:#x} bytes at {address:#x}");
        refused(stage, &what, call(1, address, length, 0), EINVAL);
    }
    for junk in 1..4 {
        let mut call = Call::unregister(1);
        call.arguments[junk] = 1;
        refused(stage, "unregister", call, EINVAL);
    }
    // 3 and 4, a header that can be read.
    for length in [1, 27] {
        refused(stage, "cut", call(1, AT, length, 0), EBADMSG);
        refused(stage, "cut", call(1, END, length, 0), EBADMSG);
    }
    for address in [1, PAGE, END, END - 27, END - 1, USER_END - 28] {
        refused(stage, "unmapped", call(1, address, 28, 0), EFAULT);
    }
    // 5 to 8, what the header says.
    let mut cases: Vec<(&str, Vec<Fault>, i32)> = vec![
        ("magic", vec![(0, 2, 0), (2, 1, 1)], EBADMSG),
        ("magic of another machine", vec![(0, 2, 0xe2de)], EBADMSG),
        ("version", vec![(2, 1, 1), (3, 1, 0)], EPROTONOSUPPORT),
        ("version", vec![(2, 1, 4)], EPROTONOSUPPORT),
        ("AArch64", vec![(4, 1, 2), (3, 1, 0)], EPROTONOSUPPORT),
        ("big-endian", vec![(4, 1, 1)], EPROTONOSUPPORT),
        ("ABI", vec![(4, 1, 0xff)], EPROTONOSUPPORT),
        ("unknown flag", vec![(3, 1, 0x85)], EBADMSG),
        ("unknown flag", vec![(3, 1, 0x0d)], EBADMSG),
        ("not sorted", vec![(3, 1, 4)], EBADMSG),
        ("fixed FP", vec![(5, 1, 1)], EBADMSG),
        ("fixed RA", vec![(6, 1, 0)], EBADMSG),
        ("fixed RA", vec![(6, 1, 8)], EBADMSG),
        ("no functions", vec![(8, 4, 0)], EBADMSG),
        ("functions", vec![(8, 4, 3)], EBADMSG),
        ("functions", vec![(8, 4, 0xffff_ffff)], EBADMSG),
        ("auxiliary", vec![(7, 1, 0xff)], EBADMSG),
        ("bytes of rows", vec![(16, 4, 3)], EBADMSG),
        ("bytes of rows", vec![(16, 4, 0xffff_ffff)], EBADMSG),
        ("index in rows", vec![(20, 4, 1)], EBADMSG),
        ("index", vec![(20, 4, 0xffff_ffff)], EBADMSG),
        ("rows in index", vec![(24, 4, 0)], EBADMSG),
        ("rows", vec![(24, 4, 0xffff_ffff)], EBADMSG),
    ];
    if version == 3 {
        cases.push(("a flag of V2", vec![(3, 1, 7)], EBADMSG));
    }
    // 10, what the index says: first function, last function.
    let field = |at: usize| AT + at as u64;
    let to = |at: usize, text: u64| text.wrapping_sub(field(at));
    cases.extend([
        (
            "empty",
            vec![(last, start, to(last, TEXT)), (last + start, 4, 0)],
            EBADMSG,
        ),
        (
            "backwards",
            vec![(last, start, to(last, TEXT - 0x100))],
            EBADMSG,
        ),
    ]);
    if version == 3 {
        let at = |at: usize, text| (at, 8, to(at, text));
        cases.extend([
            ("text at 0", vec![at(first, 0)], EBADMSG),
            (
                "text beyond the end",
                vec![at(last, USER_END - 0x1f)],
                EBADMSG,
            ),
            ("start below 0", vec![at(first, u64::MAX)], EBADMSG),
            ("start wraps", vec![(first, 8, 1 << 63)], EBADMSG),
            ("end wraps", vec![at(last, u64::MAX)], EBADMSG),
            (
                "start of the last wraps",
                vec![(last, 8, (1 << 63) - 1)],
                EBADMSG,
            ),
            (
                "kernel",
                vec![at(first, 1 << 63), at(last, (1 << 63) + 9)],
                EBADMSG,
            ),
        ]);
    }
    for (what, faults, errno) in cases {
        let mut bytes = bytes.clone();
        for (at, len, value) in faults {
            put(&mut bytes, at, len, value);
        }
        actor.write(AT, &bytes);
        // A key that holds nothing comes later.
        for how in [0, REPLACE] {
            let answer = stage.ask(actor, call(1, AT, length, how));
            assert_eq!(answer, (-errno).into(), "V{version}: {what}");
        }
    }
    // 9, the first and the last entry. Index and rows where no memory is; what is there is nonsense.
    for (what, offset) in [("first", 0x1000_0000), ("last", PAGE as u32 - 28 - 24)] {
        let at = END - PAGE;
        let mut bytes = sound.bytes(at)[..HEADER].to_vec();
        put(&mut bytes, 20, 4, offset.into());
        put(&mut bytes, 24, 4, 0x2000_0000);
        actor.write(at, &bytes);
        // A start that wraps (V3), and one below 0.
        actor.write(END - 24, &(i64::MIN + 9).to_le_bytes());
        let answer = stage.ask(actor, call(1, at, 0x3000_0000, REPLACE));
        assert_eq!(answer, (-EFAULT).into(), "V{version}: {what}");
    }
    // 11 and 12, what is registered.
    assert!(register(stage, actor, 1, AT, &bytes) > 0);
    let other = written(AT + PAGE, &[(TEXT + 0x11f, 0x100), (TEXT + 0x400, 4)]);
    actor.write(AT + PAGE, &other);
    let other = |key, how| call(key, AT + PAGE, other.len() as u64, how);
    assert_eq!(stage.ask(actor, other(2, REPLACE)), (-ENOENT).into());
    assert_eq!(stage.ask(actor, other(2, 0)), (-EEXIST).into());
    assert_eq!(
        stage.ask(actor, other(1, 0)),
        (-EEXIST).into(),
        "of its own key"
    );
    assert_eq!(stage.ask(actor, Call::unregister(2)), (-ENOENT).into());
    stage.check();
    assert!(stage.ask(actor, other(1, REPLACE)) > 0);
    stage.check();
    assert_eq!(stage.ask(actor, Call::unregister(1)), 1);
    // 13 is in `quotas`.
}

/// Pages that are mapped, but not present: whoever can brings them in.
fn absent_pages(stage: &mut Stage, actor: &mut Actor) {
    // The header in the first page, the last entry in the third.
    let shape = Shape::new(3, SORTED, &vec![(TEXT, 0x10); 2 * PAGE as usize / 16]);
    let mut bytes = shape.bytes(AT);
    let last = shape.entry_at(shape.functions.len() - 1);
    put(&mut bytes, last, 8, TEXT + 0x100 - AT);
    actor.write(AT, &bytes);
    let register = Call::register(1, AT, bytes.len() as u64);
    let before = stage.registry.maps().counts();
    for page in [0, 2] {
        actor.drop_pages(AT + page * PAGE, PAGE);
        let answer = stage.ask(actor, register);
        match stage.faults_in {
            true => {
                assert!(answer > 0, "page {page}: {answer}");
                assert_eq!(stage.ask(actor, Call::unregister(1)), 1);
            }
            false => assert_eq!(answer, (-EFAULT).into(), "page {page}"),
        }
        stage.check();
        // Once it is there, everybody is content.
        actor.write(AT + page * PAGE, &bytes[(page * PAGE) as usize..][..8]);
        assert!(stage.ask(actor, register) > 0);
        assert_eq!(stage.ask(actor, Call::unregister(1)), 1);
    }
    let waited = stage.registry.maps().counts().later - before.later;
    let listens = !stage.registry.hook().answers();
    assert_eq!(waited, if stage.faults_in && listens { 2 } else { 0 });
    // What nobody can bring is refused: after the wait, too.
    actor.drop_pages(AT, 3 * PAGE);
    actor.protect(AT + 2 * PAGE, PAGE, libc::PROT_NONE);
    assert_eq!(stage.ask(actor, register), (-EFAULT).into());
    actor.protect(AT + 2 * PAGE, PAGE, libc::PROT_READ | libc::PROT_WRITE);
}
