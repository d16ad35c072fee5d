//! Why the kernel side could not do what it was asked.

use std::fmt;

/// What failed, and where.
#[derive(Debug)]
pub enum Error {
    /// The programs could not be opened or loaded; and the end of what libbpf said about it.
    Load(libbpf_rs::Error, String),
    /// A program could not be attached to an event.
    Attach(libbpf_rs::Error),
    /// A map operation failed.
    Map(libbpf_rs::Error),
    /// No hook was asked for.
    NoHook,
    /// A hook cannot be used here, and why.
    Hook(&'static str, String),
    /// A folder or file for pinned maps.
    Pin(std::path::PathBuf, std::io::Error),
    /// Maps are pinned there by another version of this program.
    Layout(std::path::PathBuf),
    /// The mode is not possible on this kernel.
    NoTaskWork,
    /// The arena has no room for a table of so many bytes.
    ArenaFull(usize),
    /// The section is not one that the walker reads.
    Section(framewalk_sframe::Error),
    /// The section is sound, but of a kind that the programs do not read.
    SectionKind,
    /// The object number is beyond what a frame can carry.
    ObjectNumber(u32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Load(error, said) => {
                write!(f, "the kernel refused the BPF programs: {error:#}")?;
                // Without privileges the error says it all; but the verifier's errors can be called the same.
                let privileged = error.kind() != libbpf_rs::ErrorKind::PermissionDenied;
                if privileged || said.contains("PROG LOAD LOG") {
                    write!(f, "; libbpf's last words:\n{said}")?;
                }
                Ok(())
            }
            Error::Attach(error) => write!(f, "the BPF program could not be attached: {error:#}"),
            Error::Map(error) => write!(f, "a BPF map refused an update: {error:#}"),
            Error::NoHook => write!(f, "no hook of the announce ABI was asked for"),
            Error::Hook(name, why) => write!(f, "{name}: {why}"),
            Error::Pin(path, error) => write!(
                f,
                "{}: {error} (a BPF file system is needed: mount -t bpf bpf /sys/fs/bpf)",
                path.display()
            ),
            Error::Layout(path) => write!(
                f,
                "{}: pinned by another version of framewalk; end its agent",
                path.display()
            ),
            Error::NoTaskWork => {
                write!(
                    f,
                    "this kernel has no BPF task work (Linux 6.18 and later): use --mode immediate or auto"
                )
            }
            Error::ArenaFull(bytes) => {
                write!(f, "no room in the arena for a table of {bytes} bytes")
            }
            Error::Section(error) => write!(f, "not a usable SFrame section: {error}"),
            Error::SectionKind => {
                write!(f, "not a sorted, PC-relative SFrame V3 section for x86-64")
            }
            Error::ObjectNumber(number) => write!(f, "object number {number} does not fit a frame"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Load(error, _) | Error::Attach(error) | Error::Map(error) => Some(error),
            _ => None,
        }
    }
}
