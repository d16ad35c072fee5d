//! node: generated code, builtins without unwind data, and C++ without frame pointers, in one stack.

use super::recorded::{Recorded, Stack, record, skip, words};
use super::targets;
use std::path::Path;

const NODE: &str = "/usr/bin/node";
const DEPTH: usize = 12;
/// The functions of `deep.js`.
const FUNCTIONS: [&str; 9] = [
    "work",
    "down",
    "leaf",
    "bySort",
    "compared",
    "byForEach",
    "visited",
    "byJson",
    "printed",
];

fn recorded(test: &str, options: &[&str]) -> Option<Recorded> {
    if !Path::new(NODE).exists() {
        skip(test, "there is no /usr/bin/node");
        return None;
    }
    let mut arguments = words(&["--engine", "kernel", "-F", "997", "--", NODE]);
    arguments.extend(words(options));
    arguments.extend(words(&[targets::sources().join("deep.js")]));
    arguments.extend(words(&["4"]));
    record(test, &arguments)
}

fn assert_complete(recorded: &Recorded) {
    let (complete, all) = (recorded.count("complete"), recorded.count("samples"));
    assert!(complete * 100 >= all * 95, "{complete} of {all}");
    assert_eq!(recorded.count("lost"), 0);
}

/// The functions of `deep.js` on a stack, by the names that V8 gives them: `JS:*down /path/deep.js:15:14`.
fn functions(stack: &Stack) -> Vec<&str> {
    let names = stack.user.iter().filter_map(|name| {
        let name = name
            .strip_prefix("JS:")?
            .trim_start_matches(['*', '~', '^', '+']);
        name.split_once(' ').map(|(name, _)| name)
    });
    names.filter(|name| FUNCTIONS.contains(name)).collect()
}

/// The calls from `work` to the last `down`.
fn chain() -> Vec<&'static str> {
    let mut chain = vec!["work"];
    for depth in (0..=DEPTH).rev() {
        chain.push("down");
        chain.extend_from_slice(match depth % 4 {
            0 if depth > 0 => &["bySort", "compared"],
            1 => &["byForEach", "visited"],
            2 => &["byJson", "printed"],
            _ => &[],
        });
    }
    chain
}

fn nests(functions: &[&str], chain: &[&str]) -> bool {
    match functions {
        [above @ .., "leaf"] => above.last() == Some(&"down") && chain.starts_with(above),
        _ => chain.starts_with(functions),
    }
}

#[test]
fn node_stacks_are_complete() {
    if let Some(recorded) = recorded("node_stacks_are_complete", &[]) {
        assert_complete(&recorded);
        assert!(recorded.samples_where(|stack| stack.has("node::Start(int, char**)")) > 0);
    }
}

#[test]
fn node_calls_nest() {
    // The interpreter alone, the first compiler alone, and the last one, which would put functions into each other.
    let modes: [&[&str]; 3] = [
        &["--no-opt", "--no-sparkplug"],
        &["--no-opt", "--always-sparkplug"],
        &["--no-turbo-inlining"],
    ];
    let names = [
        "--perf-basic-prof",
        "--interpreted-frames-native-stack",
        "--no-logfile-per-isolate",
        "--logfile=/dev/null",
    ];
    let chain = chain();
    for mode in modes {
        let options = [&names[..], mode].concat();
        let Some(recorded) = recorded("node_calls_nest", &options) else {
            return;
        };
        assert_complete(&recorded);
        let is_known = |stack: &Stack| stack.cut.is_none() && !functions(stack).is_empty();
        let known = recorded.samples_where(is_known);
        assert!(
            known * 100 >= recorded.samples() * 50,
            "{known} of {}",
            recorded.samples()
        );
        let wrong = |stack: &Stack| is_known(stack) && !nests(&functions(stack), &chain);
        for (stack, _) in recorded.stacks.iter().filter(|(stack, _)| wrong(stack)) {
            println!("{:?}", functions(stack));
            // The caller of a function whose frame is not made yet may be left out. Nobody else may, and nobody is
            // there who should not be.
            let mut left = chain.iter().chain(["leaf"].iter());
            assert!(
                functions(stack)
                    .iter()
                    .all(|name| left.any(|other| other == name)),
                "{stack:?}"
            );
        }
        let wrong = recorded.samples_where(wrong);
        assert!(wrong * 100 <= known, "{wrong} of {known}");
        let deep = recorded.samples_where(|stack| {
            functions(stack).iter().filter(|f| **f == "down").count() > DEPTH
        });
        assert!(deep > 0, "the whole depth");
    }
}
