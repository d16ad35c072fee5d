//! The guest's whole file system: a cpio archive of a few programs and the libraries that they
//! need, each where it lies here. Not compressed: unpacking costs an emulated processor more than
//! reading.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Types and permissions of stat(2).
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// The files of the guest: place there (absolute), file here.
#[derive(Debug, Default)]
pub(super) struct Initramfs {
    files: BTreeMap<String, PathBuf>,
}

impl Initramfs {
    /// Adds a program and its shared libraries.
    pub(super) fn program(&mut self, place: &str, program: &Path) -> Result<(), String> {
        for library in libraries(program)? {
            self.files.insert(library.clone(), PathBuf::from(library));
        }
        self.files.insert(place.to_string(), program.to_path_buf());
        Ok(())
    }

    /// Writes the archive.
    pub(super) fn write(&self, path: &Path) -> Result<(), String> {
        let at = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let file = File::create(path).map_err(|error| at(path, error))?;
        let mut archive = BufWriter::new(file);
        let directories = directories(self.files.keys());
        for (number, directory) in (1..).zip(&directories) {
            let entry = entry(directory, DIRECTORY, number);
            entry
                .write(&mut archive, 0)
                .finish()
                .map_err(|error| at(path, error))?;
        }
        for (number, (place, here)) in (directories.len() + 1..).zip(&self.files) {
            let bytes = fs::read(here).map_err(|error| at(here, error))?;
            let size = u32::try_from(bytes.len())
                .map_err(|_| format!("{}: too large for the archive", here.display()))?;
            let mut writer = entry(place, PROGRAM, number).write(&mut archive, size);
            let written = writer
                .write_all(&bytes)
                .and_then(|()| writer.finish().map(drop));
            written.map_err(|error| at(path, error))?;
        }
        let written = cpio::newc::trailer(archive).and_then(|mut archive| archive.flush());
        written.map_err(|error| at(path, error))
    }
}

/// An entry. Equal inode numbers would be one file.
fn entry(place: &str, mode: u32, number: usize) -> cpio::NewcBuilder {
    let name = place.trim_start_matches('/');
    cpio::NewcBuilder::new(name)
        .mode(mode)
        .ino(u32::try_from(number).unwrap_or(0))
}

/// All directories above these places, outer ones first.
fn directories<'a>(places: impl Iterator<Item = &'a String>) -> Vec<String> {
    let above = places.flat_map(|place| Path::new(place).ancestors().skip(1));
    let above = above.filter_map(Path::to_str).filter(|name| *name != "/");
    let mut all: Vec<String> = above.map(str::to_string).collect();
    all.sort(); // a prefix sorts before what it begins
    all.dedup();
    all
}

/// The shared libraries of a program and their loader, as ldd finds them.
fn libraries(program: &Path) -> Result<Vec<String>, String> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("ldd: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if (said.clone() + complaint.clone()).contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    let found = match output.status.success() {
        true => found(&said),
        false => Err(complaint.trim().to_string()),
    };
    found.map_err(|why| format!("ldd {}: {why}", program.display()))
}

/// Reads what ldd printed: `NAME => PATH (ADDRESS)`, `PATH (ADDRESS)` for the loader; the vdso has
/// no path.
fn found(listed: &str) -> Result<Vec<String>, String> {
    let mut paths = Vec::new();
    for line in listed.lines().map(str::trim) {
        let (name, path) = line.split_once(" => ").unwrap_or((line, line));
        if path == "not found" {
            return Err(format!("{name} is not found"));
        }
        let path = path.rsplit_once(" (").map_or(path, |(path, _)| path);
        if path.starts_with('/') {
            paths.push(path.to_string());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const LISTED: &str = "\
\tlinux-vdso.so.1 (0x00007ffc9b5e8000)
\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f1d3a5f5000)
\tlibodd.so => /opt/with space (1)/libodd.so (0x00007f1d3a5f5000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f1d3a632000)
";

    #[test]
    fn libraries_are_found_where_they_lie() {
        let paths = [
            "/lib/x86_64-linux-gnu/libz.so.1",
            "/opt/with space (1)/libodd.so",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(found(LISTED).unwrap(), paths);
        assert_eq!(
            found("\tstatically linked\n").unwrap(),
            Vec::<String>::new()
        );
        let missing = found("\tlibmissing.so.1 => not found\n");
        assert_eq!(missing.unwrap_err(), "libmissing.so.1 is not found");
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let places = [
            "/lib/a/b.so".to_string(),
            "/init".into(),
            "/lib/c.so".into(),
        ];
        assert_eq!(directories(places.iter()), ["/lib", "/lib/a"]);
    }

    #[test]
    fn an_archive_has_the_program_and_its_libraries() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.cpio");
        let program = std::env::current_exe().unwrap();
        let mut initramfs = Initramfs::default();
        initramfs.program("/programs/x", &program).unwrap();
        initramfs.write(&path).unwrap();

        let mut archive = File::open(&path).unwrap();
        let (mut names, mut inodes) = (Vec::new(), Vec::new());
        loop {
            let mut entry = cpio::NewcReader::new(archive).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            names.push(entry.entry().name().to_string());
            inodes.push(entry.entry().ino());
            if entry.entry().name() == "programs/x" {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                assert!(bytes == fs::read(&program).unwrap());
                assert_eq!(entry.entry().mode(), PROGRAM);
            }
            archive = entry.finish().unwrap();
        }
        assert!(names.contains(&"programs".to_string()), "{names:?}");
        assert!(
            names.iter().any(|name| name.contains("libc.so")),
            "{names:?}"
        );
        let all = inodes.len();
        inodes.dedup();
        assert_eq!(inodes.len(), all);
    }

    #[test]
    fn what_is_no_program_is_named() {
        let mut initramfs = Initramfs::default();
        let missing = initramfs
            .program("/x", Path::new("/nonexistent/x"))
            .unwrap_err();
        assert!(missing.contains("/nonexistent/x"), "{missing}");
    }
}
