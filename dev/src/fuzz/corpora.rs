//! Corpora: what was found interesting, without what says nothing new; and the small part of it that is checked in.

use super::{LONGEST, Place};
use crate::run;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Bytes of a target's inputs that are checked in, at most.
pub(super) const MOST_KEPT: u64 = 24 << 10;
/// How many of them.
const MOST_INPUTS: usize = 100;

/// Takes out of the corpora what reaches nothing that smaller inputs do not. What is to be checked in is chosen from
/// as few inputs as reach everything, of all sizes, the smaller first.
pub(super) fn keep(targets: &[&str]) -> Result<(), String> {
    let mut total = 0;
    for target in targets {
        let place = Place::of(target)?;
        if !place.program.exists() {
            return Err(format!("{target} is not built: ./run fuzz {target}"));
        }
        let merged = place.corpus.with_extension("merged");
        merge(
            &place,
            "-merge=1",
            &merged,
            &[&place.corpus, &place.checked_in],
        )?;
        replace(&place.corpus, files(&merged)?)?;
        merge(&place, "-set_cover_merge=1", &merged, &[&place.corpus])?;
        let mut chosen = files(&merged)?;
        chosen.sort_by_key(|(_, bytes)| bytes.len());
        let apart = chosen.len().div_ceil(MOST_INPUTS).max(1);
        let mut chosen: Vec<_> = chosen.into_iter().step_by(apart).collect();
        let mut room = MOST_KEPT;
        chosen.retain(|(_, bytes)| match room.checked_sub(bytes.len() as u64) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        });
        let (count, bytes) = (chosen.len(), MOST_KEPT - room);
        // Names by contents: those of libFuzzer, which are long.
        for (name, _) in &mut chosen {
            name.truncate(12);
        }
        replace(&place.checked_in, chosen)?;
        fs::remove_dir_all(&merged).map_err(|error| format!("{}: {error}", merged.display()))?;
        println!("{target}: {count} inputs of {bytes} bytes to check in");
        total += bytes;
    }
    println!("{total} bytes to check in");
    Ok(())
}

/// Copies what covers everything from the corpora into an empty directory.
fn merge(place: &Place, how: &str, into: &Path, from: &[&Path]) -> Result<(), String> {
    let text = |error| format!("{}: {error}", into.display());
    if into.exists() {
        fs::remove_dir_all(into).map_err(text)?;
    }
    fs::create_dir_all(into).map_err(text)?;
    let mut command = Command::new(&place.program);
    command.args([how, LONGEST]).arg(into).args(from);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    match run::status(command)? {
        status if status.success() => Ok(()),
        status => Err(format!("{} {how}: {status}", place.program.display())),
    }
}

fn files(directory: &Path) -> Result<Vec<(String, Vec<u8>)>, String> {
    let text = |error| format!("{}: {error}", directory.display());
    let entries = fs::read_dir(directory).map_err(text)?;
    entries
        .map(|entry| {
            let entry = entry.map_err(text)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok((name, fs::read(entry.path()).map_err(text)?))
        })
        .collect()
}

/// Puts these files in the place of all that are there.
fn replace(directory: &Path, files: Vec<(String, Vec<u8>)>) -> Result<(), String> {
    let text = |error| format!("{}: {error}", directory.display());
    fs::remove_dir_all(directory).map_err(text)?;
    fs::create_dir_all(directory).map_err(text)?;
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).map_err(text)?;
    }
    Ok(())
}
