//! 100,000 registrations. A test program of its own: every agent hears them.

#[path = "agent/running.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod running;

use running::{Agent, Announcer, Folder, until};
use rustix::process::Signal;

#[test]
fn a_flood_leaves_it_responsive() {
    const PROCESSES: usize = 25;
    const EACH: u64 = 4000;
    let folder = Folder::new();
    let Some(agent) = Agent::start("a_flood_leaves_it_responsive", &folder) else {
        return;
    };
    let mut flooding: Vec<Announcer> = (0..PROCESSES).map(|_| Announcer::start()).collect();
    for announcer in &mut flooding {
        assert_eq!(announcer.number(&format!("flood {EACH} 64")), 0, "refused");
    }
    // Others are heard and watched all the same.
    let mut ordinary = Announcer::start();
    ordinary.load("calls.v3.so");
    let pid = ordinary.pid().to_string();
    let watched = until("the ordinary one is watched", || {
        let listed = agent.sections(&["-p", &pid]);
        assert!(listed["agent"]["sections"].as_u64().unwrap() > PROCESSES as u64 * EACH);
        listed["processes"][0]["sections"]
            .as_array()
            .unwrap()
            .iter()
            .find_map(|section| section["announced"]["changed"].as_bool())
    });
    assert!(!watched);
    // And in the end, all that flooded.
    let last = flooding.last().unwrap().pid().to_string();
    until("all are watched", || {
        let listed = agent.sections(&["-p", &last]);
        let sections = listed["processes"][0]["sections"].as_array().unwrap();
        let looked = sections
            .iter()
            .filter(|section| section["announced"]["changed"] == false);
        (looked.count() as u64 == EACH).then_some(())
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(peak < 200 << 10, "{peak} kB");
    for announcer in &flooding {
        assert!(!agent.has_caught(announcer.pid()));
    }
    drop(flooding);
    let (status, said) = agent.end(Signal::TERM);
    assert!(status.success(), "{said}");
}
