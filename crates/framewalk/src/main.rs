//! The `framewalk` command.

use clap::Parser;
use framewalk::args::{Command, Verb};
use framewalk::{commands, engines};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Verb::Record(args) = Command::parse().verb;
    match commands::record::run(&args, &mut engines::open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("framewalk: {error:#}");
            ExitCode::FAILURE
        }
    }
}
