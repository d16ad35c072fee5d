//! `framewalk-oracle [--boundaries N] [--markdown] [PROGRAM...]`: one table, and below it where walks were not right.
//! Fails where a walk was wrong, ended early for no known reason, or did not come to what a program is for.

#[cfg(target_arch = "x86_64")]
mod report;

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    match report::main() {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(usage) => {
            eprintln!("{usage}");
            std::process::ExitCode::from(2)
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    eprintln!("only x86-64 is stepped");
}
