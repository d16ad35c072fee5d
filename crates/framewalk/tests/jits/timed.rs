//! Reads a recording in the Firefox Profiler's format: samples with their times.

use flate2::read::GzDecoder;
use serde_json::Value;
use std::fs::File;
use std::path::Path;

/// A sample with its time.
pub(crate) struct Sample {
    /// The thread's name.
    pub(crate) thread: String,
    /// Wall clock, ns.
    pub(crate) time: f64,
    /// Functions, outermost first.
    pub(crate) names: Vec<String>,
    /// Whether a frame of it is a guess.
    pub(crate) guessed: bool,
}

impl Sample {
    /// Why the stack ends before its outermost frame, if it does.
    pub(crate) fn cut(&self) -> Option<&str> {
        let first = self.names.first()?;
        first.starts_with("[cut off: ").then_some(first)
    }
}

/// A column of numbers; null is None.
fn column(table: &Value, name: &str) -> Vec<Option<usize>> {
    let column = table[name].as_array().expect("a column");
    let number = |value: &Value| value.as_u64().map(|number| number as usize);
    column.iter().map(number).collect()
}

/// All samples with a stack.
pub(crate) fn read(path: &Path) -> Vec<Sample> {
    let file = GzDecoder::new(File::open(path).unwrap());
    let profile: Value = serde_json::from_reader(file).unwrap();
    let began = profile["meta"]["startTime"].as_f64().unwrap() * 1e6;
    let categories = profile["meta"]["categories"].as_array().unwrap();
    let is_guess = |name: &Value| name.as_str().unwrap().starts_with("Guess");
    let guess = categories.iter().position(|each| is_guess(&each["name"]));
    let mut samples = Vec::new();
    for thread in profile["threads"].as_array().unwrap() {
        let strings = thread["stringArray"].as_array().unwrap();
        let names = column(&thread["funcTable"], "name");
        let functions = column(&thread["frameTable"], "func");
        let guesses = column(&thread["frameTable"], "category");
        let frames = column(&thread["stackTable"], "frame");
        let callers = column(&thread["stackTable"], "prefix");
        let deltas = thread["samples"]["timeDeltas"].as_array().unwrap();
        let mut time = began;
        for (stack, delta) in column(&thread["samples"], "stack").iter().zip(deltas) {
            time += delta.as_f64().unwrap() * 1e6;
            let mut sample = Sample {
                thread: thread["name"].as_str().unwrap().to_string(),
                time,
                names: Vec::new(),
                guessed: false,
            };
            let mut next = *stack;
            while let Some(stack) = next {
                let frame = frames[stack].unwrap();
                let name = names[functions[frame].unwrap()].unwrap();
                sample.names.push(strings[name].as_str().unwrap().into());
                sample.guessed |= guesses[frame] == guess;
                next = callers[stack];
            }
            sample.names.reverse();
            samples.push(sample);
        }
    }
    samples
}
