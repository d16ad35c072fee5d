//! Sections that change after they were registered.

use crate::running::{Agent, Announcer, Folder, until};
use rustix::process::Signal;

/// Waits until the agent knows what a section was.
fn hashed(agent: &Agent, pid: u32, key: u64) {
    let changed = until("the agent has looked at it", || {
        agent.section(pid, key)?["announced"]["changed"].as_bool()
    });
    assert!(!changed);
}

/// Waits until a section is out of use.
fn quarantined(agent: &Agent, pid: u32, key: u64) {
    until("it is quarantined", || {
        let section = agent.section(pid, key).unwrap();
        let announced = &section["announced"];
        if announced["quarantined"] == true {
            assert_eq!(announced["changed"], true);
        }
        (announced["quarantined"] == true).then_some(())
    });
}

#[test]
fn a_thread_that_rewrites_a_section_is_caught() {
    let folder = Folder::new();
    let test = "a_thread_that_rewrites_a_section_is_caught";
    let Some(agent) = Agent::start(test, &folder) else {
        return;
    };
    let (mut bad, mut good) = (Announcer::start(), Announcer::start());
    let own = bad.load("calls.v3.so");
    let copy = bad.register("copy");
    good.load("calls.v3.so");
    let others = good.register("copy");
    // From before the agent has looked or not: either way it is seen to change.
    bad.number(&format!("scribble {:x}", copy.key));
    quarantined(&agent, bad.pid(), copy.key);
    for (pid, key) in [(bad.pid(), own.key), (good.pid(), others.key)] {
        hashed(&agent, pid, key);
        let section = agent.section(pid, key).unwrap();
        assert_eq!(section["announced"]["quarantined"], false);
    }
    let pid = bad.pid();
    bad.end();
    until("it is gone", || {
        agent.announced(pid).is_empty().then_some(())
    });
    assert!(!agent.has_caught(good.pid()));
    let (_, said) = agent.end(Signal::TERM);
    let line = format!("({pid}): the section at {:#x}", copy.address);
    assert_eq!(said.matches(&line).count(), 1, "{said}");
    assert!(!said.contains(" 0 sections quarantined"), "{said}");
}

#[test]
fn one_byte_is_enough() {
    let folder = Folder::new();
    let Some(agent) = Agent::start("one_byte_is_enough", &folder) else {
        return;
    };
    let mut announcer = Announcer::start();
    let pid = announcer.pid();
    announcer.load("calls.v3.so");
    let copy = announcer.register("copy");
    hashed(&agent, pid, copy.key);
    announcer.number(&format!("once {:x}", copy.key));
    // Whoever lists looks for himself.
    let section = agent.section(pid, copy.key).unwrap();
    assert_eq!(section["announced"]["changed"], true);
    quarantined(&agent, pid, copy.key);

    // What was registered again is another.
    announcer.number(&format!("again {:x} 1", copy.key));
    let section = agent.section(pid, copy.key).unwrap();
    assert_eq!(section["announced"]["quarantined"], false);
    hashed(&agent, pid, copy.key);
}

#[test]
fn what_vanishes_or_is_registered_again_is_no_change() {
    let folder = Folder::new();
    let test = "what_vanishes_or_is_registered_again_is_no_change";
    let Some(agent) = Agent::start(test, &folder) else {
        return;
    };
    let mut busy = Announcer::start();
    busy.load("calls.v3.so");
    let copy = busy.register("copy");
    let mut shared = Announcer::start();
    shared.load("calls.v3.so");
    let mut kept = Vec::new();
    let mut pids = vec![busy.pid(), shared.pid()];
    for _ in 0..20 {
        // Changed while it is not registered, all the time.
        let answer = busy.number(&format!("again {:x} 2000", copy.key));
        agent.accepted(answer);
        let mut brief = Announcer::start();
        pids.push(brief.pid());
        brief.load("calls.v2.so");
        brief.register("copy");
        assert_eq!(brief.ask("exec"), "ready");
        brief.load("calls.v3.so");
        brief.register("copy");
        drop(brief);
        // A child that has the same memory registers, and execs: the registration stays with the parent.
        let together = shared.register("together");
        kept.push(together.key);
    }
    hashed(&agent, busy.pid(), copy.key);
    for key in kept {
        hashed(&agent, shared.pid(), key);
    }
    for pid in pids {
        assert!(!agent.has_caught(pid), "{pid}: {}", agent.said());
    }
    let (status, said) = agent.end(Signal::TERM);
    assert!(status.success(), "{said}");
}
