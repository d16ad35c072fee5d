//! What the kernel is and allows, as far as files tell.

use super::Line;
use rustix::fs::statfs;
use std::fs::{self, File};
use std::io::Read;

/// include/uapi/linux/magic.h
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
const BPF_FS: &str = "/sys/fs/bpf";
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// The most that is read of it, bytes.
const MAX_BTF: u64 = 64 << 20;
/// The first Linux with BPF arenas.
const NEEDED: (u32, u32) = (6, 9);

/// The effective capabilities of this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capabilities(u64);

/// include/uapi/linux/capability.h
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

impl Capabilities {
    pub(super) fn own() -> Capabilities {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let bits = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
        Capabilities(bits.unwrap_or(0))
    }

    fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    fn perfmon(self) -> bool {
        self.has(PERFMON) || self.has(SYS_ADMIN)
    }

    /// What loading these BPF programs takes.
    pub(super) fn bpf(self) -> bool {
        self.perfmon() && (self.has(BPF) || self.has(SYS_ADMIN))
    }
}

pub(super) fn lines(capabilities: Capabilities) -> Vec<Line> {
    let btf = Btf::read();
    vec![
        kernel(),
        btf.line(),
        rights(capabilities),
        btf.has(
            "BPF arenas",
            &["bpf_arena_alloc_pages"],
            "tables are shared with the kernel",
            "Linux 6.9 and later have them: the kernel engine needs them",
        ),
        btf.has(
            "task work",
            &[
                "bpf_task_work_schedule_resume",
                "bpf_task_work_schedule_resume_impl",
            ],
            "walks can be deferred to where pages may be faulted in",
            "Linux 6.18 and later have it: walks are immediate, and end where a page is absent",
        ),
        bpf_fs(),
        perf(capabilities),
        ptrace(capabilities),
    ]
}

fn kernel() -> Line {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let machine = std::env::consts::ARCH;
    let what = format!("Linux {release} on {machine}");
    if machine != "x86_64" {
        return Line::new("kernel", false, format!("{what}: only x86-64 so far"));
    }
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    match (next(), next()) {
        (Some(major), Some(minor)) if (major, minor) >= NEEDED => Line::new("kernel", true, what),
        (Some(_), Some(_)) => {
            let (major, minor) = NEEDED;
            let text = format!("{what}: the kernel engine needs Linux {major}.{minor} or later");
            Line::new("kernel", false, text)
        }
        _ => Line::new("kernel", None, what),
    }
}

fn rights(capabilities: Capabilities) -> Line {
    let text = match capabilities.bpf() {
        true => "CAP_BPF and CAP_PERFMON are there",
        false => {
            "CAP_BPF and CAP_PERFMON are missing: run it as root for the kernel engine and the agent"
        }
    };
    Line::new("BPF programs", capabilities.bpf(), text)
}

/// What the kernel says of its own types and functions.
struct Btf(Result<Vec<u8>, String>);

impl Btf {
    fn read() -> Btf {
        let mut bytes = Vec::new();
        let read =
            File::open(BTF).and_then(|file| file.take(MAX_BTF).read_to_end(&mut bytes).map(|_| ()));
        Btf(read.map(|()| bytes).map_err(|error| error.to_string()))
    }

    fn line(&self) -> Line {
        match &self.0 {
            Ok(_) => Line::new("BTF", true, BTF),
            Err(error) => Line::new(
                "BTF",
                false,
                format!("{BTF}: {error}; the kernel engine needs CONFIG_DEBUG_INFO_BTF"),
            ),
        }
    }

    /// Whether the kernel has one of these functions. Names stand in one section, each ended by a 0.
    fn has(&self, name: &str, functions: &[&str], good: &str, bad: &str) -> Line {
        let Ok(bytes) = &self.0 else {
            return Line::new(name, None, "cannot be known without BTF");
        };
        let some = functions.iter().any(|function| {
            let wanted = [b"\0", function.as_bytes(), b"\0"].concat();
            bytes.windows(wanted.len()).any(|window| window == wanted)
        });
        Line::new(name, some, if some { good } else { bad })
    }
}

fn bpf_fs() -> Line {
    let name = "BPF files";
    match statfs(BPF_FS) {
        Ok(stat) if stat.f_type as u32 == BPF_FS_MAGIC => Line::new(name, true, BPF_FS),
        _ => Line::new(
            name,
            false,
            format!(
                "{BPF_FS} is no BPF file system, which an agent needs: mount -t bpf bpf {BPF_FS}"
            ),
        ),
    }
}

fn perf(capabilities: Capabilities) -> Line {
    const SYSCTL: &str = "/proc/sys/kernel/perf_event_paranoid";
    let name = "perf events";
    let text = match fs::read_to_string(SYSCTL) {
        Ok(text) => text,
        Err(error) => return Line::new(name, false, format!("{SYSCTL}: {error}")),
    };
    let what = format!("kernel.perf_event_paranoid is {}", text.trim());
    match text.trim().parse::<i32>() {
        _ if capabilities.perfmon() => {
            Line::new(name, true, format!("{what}, CAP_PERFMON is there"))
        }
        Ok(..=0) => Line::new(name, true, format!("{what}: everything may be recorded")),
        Ok(1) => Line::new(
            name,
            true,
            format!("{what}: one's own processes, with kernel time"),
        ),
        Ok(2) => Line::new(
            name,
            true,
            format!(
                "{what}: one's own processes, without kernel time (with 1, or CAP_PERFMON, with it)"
            ),
        ),
        Ok(_) => Line::new(
            name,
            false,
            format!("{what}: not without CAP_PERFMON; 2 allows one's own processes"),
        ),
        Err(_) => Line::new(name, None, what),
    }
}

fn ptrace(capabilities: Capabilities) -> Line {
    const SYSCTL: &str = "/proc/sys/kernel/yama/ptrace_scope";
    let name = "ptrace";
    let Ok(text) = fs::read_to_string(SYSCTL) else {
        return Line::new(name, true, "one's own processes (there is no Yama)");
    };
    let what = format!("kernel.yama.ptrace_scope is {}", text.trim());
    let privileged = capabilities.has(SYS_PTRACE);
    match text.trim() {
        "0" => Line::new(name, true, format!("{what}: one's own processes")),
        "1" | "2" if privileged => {
            Line::new(name, true, format!("{what}, CAP_SYS_PTRACE is there"))
        }
        "1" => Line::new(
            name,
            true,
            format!("{what}: commands that framewalk starts; -p needs CAP_SYS_PTRACE, or 0"),
        ),
        "2" => Line::new(
            name,
            false,
            format!("{what}: not without CAP_SYS_PTRACE; 1 allows commands"),
        ),
        _ => Line::new(
            name,
            false,
            format!("{what}: nobody may trace, until the next boot"),
        ),
    }
}
