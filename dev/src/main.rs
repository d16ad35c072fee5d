//! The workshop: what checks the project against the rest of the world.
#![forbid(unsafe_code)]

mod oracle;

use std::process::ExitCode;

const USAGE: &str = "usage: framewalk-dev oracle convert [PATH...]
       framewalk-dev oracle readelf FILE...";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["oracle", "convert", paths @ ..] => oracle::convert::run(paths),
        ["oracle", "readelf", files @ ..] if !files.is_empty() => oracle::readelf::run(files),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
