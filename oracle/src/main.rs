//! `framewalk-oracle [--boundaries N] [PROGRAM...]`: one table, and below it where walks were not right.

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    table::main()
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    eprintln!("only x86-64 is stepped");
}

#[cfg(target_arch = "x86_64")]
mod table {
    use framewalk_oracle::amd64::Stepped;
    use framewalk_oracle::judge::Judge;
    use framewalk_oracle::programs::{PROGRAMS, Program};
    use std::process::ExitCode;
    use std::time::Instant;

    /// Boundaries in all, unless another number is asked for.
    const BOUNDARIES: u64 = 4_000_000;
    /// Places that are told for each program.
    const TOLD: usize = 12;

    pub(super) fn main() -> ExitCode {
        let mut words: Vec<String> = std::env::args().skip(1).collect();
        let mut boundaries = BOUNDARIES;
        if let Some(at) = words.iter().position(|word| word == "--boundaries") {
            let Some(number) = words.get(at + 1).and_then(|n| n.parse().ok()) else {
                eprintln!("usage: framewalk-oracle [--boundaries N] [PROGRAM...]");
                return ExitCode::from(2);
            };
            boundaries = number;
            words.drain(at..=at + 1);
        }
        let chosen: Vec<&Program> = PROGRAMS
            .iter()
            .filter(|p| words.is_empty() || words.iter().any(|word| word == p.name))
            .collect();
        let shares: u64 = chosen.iter().map(|p| p.share).sum();
        println!(
            "{:<12} {:>10} {:>10} {:>8} {:>7} {:>7} {:>9}",
            "program", "boundaries", "right", "early", "wrong", "guessed", "per s"
        );
        let (mut all, mut right, mut early, mut wrong) = (0, 0, 0, 0);
        let mut places = Vec::new();
        for program in chosen {
            let limit = boundaries / shares * program.share;
            match run(program, limit) {
                Ok(judge) => {
                    let counts = judge.counts;
                    let (facts, guesses) = counts.wrong();
                    all += counts.all;
                    right += counts.right;
                    early += counts.early();
                    wrong += facts + guesses;
                    places.push((program.name, counts.others));
                }
                Err(why) => println!("SKIPPED {}: {why}", program.name),
            }
        }
        println!("{:<12} {all:>10} {right:>10} {early:>8} {wrong:>7}", "all");
        for (name, others) in places {
            let mut others: Vec<_> = others.into_iter().collect();
            others.sort_by_key(|(other, n)| (other.verdict.is_early(), std::cmp::Reverse(*n)));
            for (other, n) in others.iter().take(TOLD) {
                let guessed = if other.guessed { ", guessed" } else { "" };
                let (object, offset) = (&other.object, other.offset);
                println!(
                    "{name:<12} {n:>8} {:?}{guessed} at {object}+{offset:#x}",
                    other.verdict
                );
            }
        }
        ExitCode::SUCCESS
    }

    fn run(program: &Program, limit: u64) -> Result<Judge, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = program.prepare(&own.with_file_name("oracle-programs"))?;
        let began = Instant::now();
        let mut machine = Stepped::start(&mut command).map_err(|error| error.to_string())?;
        let mut judge = Judge::default();
        let result = judge.run(&mut machine, limit);
        result.map_err(|error| error.to_string())?;
        let counts = &judge.counts;
        let rate = counts.all as f64 / began.elapsed().as_secs_f64();
        println!(
            "{:<12} {:>10} {:>10} {:>8} {:>7} {:>7} {rate:>9.0}",
            program.name,
            counts.all,
            counts.right,
            counts.early(),
            counts.wrong().0 + counts.wrong().1,
            counts.guessed
        );
        Ok(judge)
    }
}
