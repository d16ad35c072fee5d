//! The `framewalk` command.

use clap::Parser;
use framewalk::args::{Command, Verb};
use framewalk::{commands, engines};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Command::parse().verb {
        Verb::Record(args) => {
            commands::record::run(&args, &mut engines::open).map(|()| ExitCode::SUCCESS)
        }
        Verb::Agent(args) => commands::agent::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Sections(args) => commands::sections::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Doctor(args) => commands::doctor::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("framewalk: {error:#}");
            ExitCode::FAILURE
        }
    }
}
