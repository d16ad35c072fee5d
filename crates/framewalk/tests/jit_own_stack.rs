//! Generated code on a stack of its own, called from C and calling C, again and again.

#[path = "jits/programs.rs"]
mod programs;
#[allow(dead_code)]
#[path = "recording/recorded.rs"]
mod recorded;
#[allow(dead_code)]
#[path = "recording/targets.rs"]
mod targets;

use programs::{program, twice};
use recorded::{Stack, record, words};
use std::collections::BTreeMap;

/// A few more, and a walk would need more than 64 changes of stack.
const LEVELS: usize = 30;

/// The whole stack, outermost first.
fn whole() -> Vec<String> {
    let mut stack = Vec::new();
    for level in 0..LEVELS {
        let climb = ["climb_even", "climb_odd"][level % 2];
        stack.extend([climb, "enter"].map(str::to_string));
        stack.push(format!("j_{level}"));
        stack.push("leave".to_string());
    }
    // The last level calls nobody outside.
    stack.pop();
    stack.push("j_leaf".to_string());
    stack
}

/// The part of a stack that climbs, without modules, and without what both climbers have inlined.
fn climbing(stack: &Stack) -> Option<Vec<&str>> {
    let names = stack.user.iter();
    let plain: Vec<&str> = names
        .map(|name| name.strip_prefix("own_stack::").unwrap_or(name))
        .collect();
    let at = plain.iter().position(|&name| name == "climb_even")?;
    let climbing = plain[at..].iter().copied();
    Some(climbing.filter(|&name| name != "climb").collect())
}

/// Every stack is whole, and what it shall be.
#[test]
fn stacks_lead_from_stack_to_stack() {
    let test = "stacks_lead_from_stack_to_stack";
    let levels = LEVELS.to_string();
    let mut arguments = words(&["--engine", "kernel", "-F", "1997", "--"]);
    let [first, second] = [["2", &levels, "1", "known"], ["2", &levels, "4", "climber"]];
    arguments.extend(twice(&program("own_stack", false), &first, &second));
    let Some(recorded) = record(test, &arguments) else {
        return;
    };
    let whole = whole();
    let mut tops: BTreeMap<&str, u64> = BTreeMap::new();
    let climbers = recorded.stacks.iter();
    for (stack, count) in climbers.filter(|(stack, _)| stack.comm == "climber") {
        assert_eq!(stack.cut, None, "{stack:?}");
        let Some(mut climbing) = climbing(stack) else {
            let generated = |name: &String| whole.contains(name);
            assert!(!stack.user.iter().any(generated), "{stack:?}");
            continue;
        };
        // C's own loop, and what may be inlined there.
        let own = |name: &&str| whole.iter().any(|known| known == name);
        let last = climbing.iter().rposition(own).unwrap();
        let above: Vec<&str> = climbing.drain(last + 1..).collect();
        assert_eq!(climbing, whole[..climbing.len()], "{stack:?}");
        let top = climbing[climbing.len() - 1];
        let may_call = top.starts_with("climb_") || above.is_empty();
        assert!(may_call, "{above:?} above {top}: {stack:?}");
        // Sibling levels are alike.
        *tops.entry(top).or_default() += count;
    }
    println!("{tops:?}");
    // Each part of the code is met, on most levels.
    let met = |name: &str| tops.get(name).is_some_and(|&count| count > 0);
    for name in ["climb_even", "climb_odd", "enter", "leave", "j_leaf"] {
        assert!(met(name), "no sample in {name}");
    }
    let levels = (0..LEVELS).filter(|level| met(&format!("j_{level}")));
    let levels = levels.count();
    assert!(levels * 3 >= LEVELS * 2, "samples on {levels} levels only");
}
