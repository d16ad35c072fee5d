//! Kernels from Debian's archive, by this machine's own apt: its configuration says where the
//! archive is, its checks of signatures and hashes say what is believed. The rest of the machine
//! is not touched: lists, caches and downloads are in a folder that is removed again.

use super::kernels::{Kernel, numbers};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The keys of Debian's archive, where the package debian-archive-keyring has them.
const KEYRINGS: &[&str] = &[
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// What this machine does after its own updates is not for this one.
const QUIET: &str = "\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
";

/// Fetches the newest release of a series into the cache.
pub(super) fn fetch(kernel: &Kernel, cache: &Path) -> Result<PathBuf, String> {
    let archive = archive()?;
    let directory = tempfile::Builder::new()
        .prefix("framewalk-kernel-")
        .permissions(Permissions::from_mode(0o755)) // apt downloads as a user of its own
        .tempdir()
        .map_err(|error| format!("{}: {error}", std::env::temp_dir().display()))?;
    let apt = Apt::new(directory.path(), &archive, kernel.suite)?;
    eprintln!(
        "vm: asking apt for Linux {} ({})",
        kernel.name, kernel.suite
    );
    output(apt.command("apt-get").arg("update"))?;
    let prefix = format!("{}{}.", kernel.package, kernel.name);
    let packages = output(apt.command("apt-cache").args(["pkgnames", &prefix]))?;
    let package = newest(kernel, &packages)
        .ok_or_else(|| format!("{} has no package {prefix}*-amd64", kernel.suite))?;
    let release = kernel.release(package).unwrap_or_default();

    eprintln!("vm: fetching {package}, once: kept in {}", cache.display());
    let download = ["download", package];
    output(
        apt.command("apt-get")
            .args(download)
            .current_dir(&apt.directory),
    )?;
    let image = unpack(&apt.directory)?;
    keep(&image, &cache.join(format!("vmlinuz-{release}")))
}

/// The newest of the packages that are the kernel's.
fn newest<'a>(kernel: &Kernel, packages: &'a str) -> Option<&'a str> {
    let packages = packages.lines().map(str::trim);
    let packages = packages.filter(|package| kernel.release(package).is_some());
    packages.max_by_key(|package| numbers(package))
}

/// The address of Debian's archive in this machine's configuration.
fn archive() -> Result<String, String> {
    let targets = |more: &[&str]| {
        let mut command = plain("apt-get");
        command.args(["indextargets", "--format", "$(REPO_URI)"]);
        output(command.args(more).arg("Created-By: Packages"))
    };
    // What calls itself Debian; without lists yet, what is called so.
    let labelled = targets(&["Origin: Debian", "Label: Debian"])?;
    if let Some(archive) = labelled.lines().next() {
        return Ok(archive.to_string());
    }
    let all = targets(&["--no-release-info"])?;
    let debian = all
        .lines()
        .find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    debian.map(str::to_string).ok_or_else(|| {
        "apt has no archive of Debian's among its sources (/etc/apt/sources.list.d)".to_string()
    })
}

/// apt with lists and caches of its own.
struct Apt {
    directory: PathBuf,
}

impl Apt {
    fn new(directory: &Path, archive: &str, suite: &str) -> Result<Apt, String> {
        let apt = Apt {
            directory: directory.to_path_buf(),
        };
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        for folder in ["lists/partial", "cache/archives/partial"] {
            let path = directory.join(folder);
            fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        write("quiet.conf", QUIET)?;
        write("one.sources", &sources(archive, suite, keyring()))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = plain(program);
        command.arg("-c").arg(self.directory.join("quiet.conf"));
        for (name, value) in [
            ("Dir::Etc::SourceList", "one.sources"),
            ("Dir::State::Lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            let value = self.directory.join(value);
            command.arg(format!("-o{name}={}", value.display()));
        }
        for option in [
            "Dir::Etc::SourceParts=/dev/null",
            "Dir::Etc::Preferences=/dev/null",
            "Dir::Etc::PreferencesParts=/dev/null",
            "Dir::State::status=/dev/null",
            "APT::Default-Release=",
            "APT::Architecture=amd64",
            "APT::Architectures=amd64",
            // An archive that does not answer is an error, and soon.
            "APT::Update::Error-Mode=any",
            "Acquire::Retries=1",
            "Acquire::http::Timeout=20",
            "Acquire::https::Timeout=20",
        ] {
            command.arg(format!("-o{option}"));
        }
        command.arg("-qq");
        command
    }
}

fn keyring() -> Option<&'static str> {
    KEYRINGS
        .iter()
        .copied()
        .find(|path| Path::new(path).exists())
}

/// A source of one suite. Without the keyring apt believes whom it believes anyway.
fn sources(archive: &str, suite: &str, keyring: Option<&str>) -> String {
    let mut text = format!(
        "Types: deb\nURIs: {archive}\nSuites: {suite}\nComponents: main\n\
         Architectures: amd64\nTargets: Packages\nLanguages: none\nPDiffs: no\n"
    );
    if let Some(keyring) = keyring {
        text += &format!("Signed-By: {keyring}\n");
    }
    text
}

/// Unpacks the one file that is needed from the one package that is here.
fn unpack(directory: &Path) -> Result<PathBuf, String> {
    let package = the_one(directory, |name| name.ends_with(".deb"))?;
    let unpacked = directory.join("unpacked");
    fs::create_dir(&unpacked).map_err(|error| format!("{}: {error}", unpacked.display()))?;
    let mut dpkg = plain("dpkg-deb");
    dpkg.arg("--fsys-tarfile")
        .arg(&package)
        .stdout(Stdio::piped());
    let mut dpkg = dpkg.spawn().map_err(|error| format!("dpkg-deb: {error}"))?;
    let mut tar = plain("tar");
    tar.args(["-x", "--wildcards", "--no-anchored", "--transform=s,.*/,,"]);
    tar.arg("-C").arg(&unpacked).arg("vmlinuz*");
    if let Some(stdout) = dpkg.stdout.take() {
        tar.stdin(stdout);
    }
    let untarred = output(&mut tar);
    let status = dpkg.wait().map_err(|error| format!("dpkg-deb: {error}"))?;
    if !status.success() {
        return Err(format!("dpkg-deb {}: {status}", package.display()));
    }
    untarred?;
    the_one(&unpacked, |name| name.starts_with("vmlinuz"))
}

/// The one file of a folder with such a name.
fn the_one(directory: &Path, is: impl Fn(&str) -> bool) -> Result<PathBuf, String> {
    let entries = fs::read_dir(directory);
    let entries = entries.map_err(|error| format!("{}: {error}", directory.display()))?;
    let found = entries.flatten().map(|entry| entry.path());
    let found: Vec<_> = found
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(&is)
        })
        .collect();
    match <[PathBuf; 1]>::try_from(found) {
        Ok([one]) => Ok(one),
        Err(found) => Err(format!(
            "the package is of another kind: one file was expected, found {found:?}"
        )),
    }
}

/// Copies into the cache, where only whole files have their names.
fn keep(image: &Path, kept: &Path) -> Result<PathBuf, String> {
    let new = kept.with_file_name(format!("new-{}", std::process::id()));
    let copied = fs::create_dir_all(kept.parent().unwrap_or(kept))
        .and_then(|()| fs::copy(image, &new))
        .and_then(|_| fs::rename(&new, kept));
    copied.map_err(|error| {
        let _ = fs::remove_file(&new);
        format!("{}: {error}", kept.display())
    })?;
    Ok(kept.to_path_buf())
}

/// A program that speaks English and asks nothing.
fn plain(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// What a program prints; what it complains about if it fails.
fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().display().to_string();
    let output = command.output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!(
                "{program}: {}: {}",
                output.status,
                complaint(&said)
            ))
        }
    }
}

/// The lines of apt's that matter, not too many of them.
fn complaint(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.take(3).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernels::KERNELS;

    #[test]
    fn the_newest_package_is_taken() {
        let packages = "linux-image-6.12.9+deb13-amd64\nlinux-image-6.12.94+deb13-amd64\n\
                        linux-image-6.12.95+deb13-rt-amd64\nlinux-image-6.12.94+deb13-amd64-unsigned\n";
        let newest = |packages| newest(&KERNELS[0], packages);
        assert_eq!(newest(packages), Some("linux-image-6.12.94+deb13-amd64"));
        assert_eq!(newest("\n"), None);
    }

    #[test]
    fn a_source_is_signed_where_keys_are_known() {
        let text = sources("mirror", "sid", Some("/keys"));
        assert!(text.contains("Suites: sid\n") && text.ends_with("Signed-By: /keys\n"));
        assert!(!sources("mirror", "sid", None).contains("Signed-By"));
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let failed = output(Command::new("sh").args(["-c", "echo 'E: no such' >&2; exit 100"]));
        assert_eq!(failed.unwrap_err(), "sh: exit status: 100: E: no such");
        let missing = output(&mut Command::new("/nonexistent/apt-get")).unwrap_err();
        assert!(missing.starts_with("/nonexistent/apt-get: "), "{missing}");
    }

    #[test]
    fn only_one_image_is_believed() {
        let directory = tempfile::tempdir().unwrap();
        let is = |name: &str| name.starts_with("vmlinuz");
        assert!(the_one(directory.path(), is).is_err());
        fs::write(directory.path().join("vmlinuz-1"), "kernel").unwrap();
        let one = the_one(directory.path(), is).unwrap();
        let kept = keep(&one, &directory.path().join("cache/vmlinuz-1")).unwrap();
        assert_eq!(fs::read(kept).unwrap(), b"kernel");
        fs::write(directory.path().join("vmlinuz-2"), "").unwrap();
        assert!(the_one(directory.path(), is).is_err());
    }
}
