//! The kernels that are booted, and where they are kept.

use super::fetch;
use std::fs;
use std::path::{Path, PathBuf};

/// A series of kernels of Debian's.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The series: `6.12` is any 6.12.x.
    pub(super) name: &'static str,
    /// The suite that has it.
    pub(super) suite: &'static str,
    /// The package's name is this and the release of the kernel, such as `6.12.94+deb13-amd64`.
    pub(super) package: &'static str,
    /// The processor to emulate.
    pub(super) cpu: &'static str,
    /// Whether walks can be deferred (Linux 6.18).
    pub(super) task_work: bool,
}

pub(super) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "6.12",
        suite: "trixie",
        package: "linux-image-",
        // With cx16 one boot in a few ends in the slab allocator: emulation is to blame.
        cpu: "max,-cx16,-la57",
        task_work: false,
    },
    Kernel {
        name: "7.2",
        suite: "sid",
        package: "linux-binary-",
        // Without cx16 it has no BPF arena: ENOMEM.
        cpu: "max,-la57",
        task_work: true,
    },
];

impl Kernel {
    /// Whether this is a release of the series.
    pub(super) fn is(&self, release: &str) -> bool {
        let rest = release.strip_prefix(self.name);
        rest.is_some_and(|rest| rest.starts_with('.'))
    }

    /// The release that a package of this name would bring: no flavour but the plain one.
    pub(super) fn release<'a>(&self, package: &'a str) -> Option<&'a str> {
        let release = package.strip_prefix(self.package)?;
        let version = release.strip_suffix("-amd64")?;
        (self.is(version) && !version.contains('-')).then_some(release)
    }

    /// The image: kept from an earlier run, or fetched now. Else why there is none.
    pub(super) fn image(&self) -> Result<PathBuf, String> {
        let cache = cache();
        if let Some(image) = self.kept(&cache) {
            return Ok(image);
        }
        fetch::fetch(self, &cache).map_err(|why| {
            format!(
                "no vmlinuz-{}.* in {}, and none could be fetched: {why}",
                self.name,
                cache.display()
            )
        })
    }

    /// The newest of the series that is there already.
    fn kept(&self, cache: &Path) -> Option<PathBuf> {
        let names = fs::read_dir(cache).ok()?.flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let ours = names.filter(|name| name.strip_prefix("vmlinuz-").is_some_and(|it| self.is(it)));
        Some(cache.join(ours.max_by_key(|name| numbers(name))?))
    }
}

/// The numbers in the name of a release: what decides which is newer.
pub(super) fn numbers(name: &str) -> Vec<u64> {
    name.split(|byte: char| !byte.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// The folder of kernels: survives a fresh checkout.
pub(super) fn cache() -> PathBuf {
    let absolute = |name| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    let cache = cache.map(|cache| cache.join("framewalk"));
    cache.unwrap_or_else(crate::run::target).join("kernels")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_releases_of_the_series_are_taken() {
        let kernel = &KERNELS[0];
        let release = |package| kernel.release(package);
        let plain = "linux-image-6.12.94+deb13-amd64";
        assert_eq!(release(plain), Some("6.12.94+deb13-amd64"));
        for other in [
            "linux-image-6.12.94+deb13-amd64-unsigned",
            "linux-image-6.12.94+deb13-cloud-amd64",
            "linux-image-6.12.94+deb13-arm64",
            "linux-image-6.120.1-amd64",
            "linux-image-amd64",
            "linux-headers-6.12.94+deb13-amd64",
        ] {
            assert_eq!(release(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "vmlinuz-6.12.9+deb13-amd64",
            "vmlinuz-6.12.88+deb13-amd64",
            "vmlinuz-6.120.1",
            "vmlinuz-7.2.1",
            "note",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let kept = |number: usize| KERNELS[number].kept(directory.path());
        let newest = directory.path().join("vmlinuz-6.12.88+deb13-amd64");
        assert_eq!(kept(0), Some(newest));
        assert_eq!(kept(1), Some(directory.path().join("vmlinuz-7.2.1")));
        assert_eq!(KERNELS[0].kept(Path::new("/nonexistent")), None);
    }
}
