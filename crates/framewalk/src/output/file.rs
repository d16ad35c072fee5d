//! A file that appears under its name only when it is whole.

use anyhow::{Context, bail};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file to be written later, known to be writable now.
///
/// It is written beside its place and renamed at the end, so that neither a full disk nor the end
/// of this process leaves a half-written file that looks whole. What is no regular file (a device,
/// a pipe) is written in place.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    temporary: Option<PathBuf>,
    file: File,
}

impl OutputFile {
    /// Opens `path` for writing; what exists there stays until [`OutputFile::commit`].
    pub fn create(path: &Path) -> anyhow::Result<OutputFile> {
        Self::open(path).with_context(|| format!("{}: cannot be written", path.display()))
    }

    fn open(path: &Path) -> anyhow::Result<OutputFile> {
        // A symbolic link is kept: its target is replaced.
        let path = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
            result => result?,
        };
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => bail!("it is a directory"),
            Ok(found) if !found.is_file() => {
                let file = OpenOptions::new().write(true).open(&path)?;
                return Ok(OutputFile {
                    path,
                    temporary: None,
                    file,
                });
            }
            // Renaming could replace a file that is write-protected: ask first.
            Ok(_) => drop(OpenOptions::new().append(true).open(&path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let Some(name) = path.file_name() else {
            bail!("it has no file name")
        };
        for attempt in 0..100 {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{attempt}.part", std::process::id()));
            let temporary = path.with_file_name(hidden);
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&temporary)
            {
                Ok(file) => {
                    return Ok(OutputFile {
                        path,
                        temporary: Some(temporary),
                        file,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("too many unfinished files beside it")
    }

    /// Writes the contents and gives the file its name; on an error nothing appears.
    pub fn commit(
        mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let result = self.write(write);
        result.with_context(|| format!("{}: could not be written", self.path.display()))
    }

    fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut writer = BufWriter::new(&self.file);
        write(&mut writer)?;
        writer.into_inner().map_err(|error| error.into_error())?;
        let Some(temporary) = &self.temporary else {
            return Ok(());
        };
        // Some file systems find out only now that the disk is full.
        self.file.sync_all()?;
        fs::rename(temporary, &self.path)?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own for each test, removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path =
                std::env::temp_dir().join(format!("framewalk-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Directory(path)
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn it_appears_whole_or_not_at_all() {
        let directory = Directory::new("whole");
        let path = directory.0.join("a.folded");

        let file = OutputFile::create(&path).unwrap();
        assert!(!path.exists());
        file.commit(|writer| writer.write_all(b"one")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");

        let file = OutputFile::create(&path).unwrap();
        file.commit(|writer| {
            writer
                .write_all(b"half")
                .and(Err(io::ErrorKind::StorageFull.into()))
        })
        .unwrap_err();
        drop(OutputFile::create(&path).unwrap());
        assert_eq!(
            fs::read(&path).unwrap(),
            b"one",
            "the old one is still there"
        );
        assert_eq!(directory.names(), ["a.folded"], "and nothing else");
    }

    #[test]
    fn a_link_keeps_pointing() {
        let directory = Directory::new("link");
        let (link, target) = (directory.0.join("link"), directory.0.join("target"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink("target", &link).unwrap();
        OutputFile::create(&link)
            .unwrap()
            .commit(|writer| writer.write_all(b"new"))
            .unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_device_is_written_in_place_and_its_error_is_told() {
        OutputFile::create(Path::new("/dev/null"))
            .unwrap()
            .commit(|writer| writer.write_all(b"x"))
            .unwrap();
        let error = OutputFile::create(Path::new("/dev/full"))
            .unwrap()
            .commit(|writer| writer.write_all(b"x"));
        assert!(format!("{:#}", error.unwrap_err()).contains("No space left"));
    }

    #[test]
    fn what_cannot_be_written_is_an_error_at_once() {
        assert!(OutputFile::create(Path::new("/nonexistent/a.svg")).is_err());
        assert!(OutputFile::create(Path::new("/")).is_err());
        assert!(OutputFile::create(Path::new("")).is_err());
    }
}
