//! What the running kernel can do, asked once: its BTF is large, and loading a whole object to find out is slow.
#![allow(unsafe_code)]

use crate::registry::Hook;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, Typedef};
use libbpf_rs::libbpf_sys;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::OnceLock;

/// The kfuncs that schedule task work: 6.18, then 7.0 and later.
const TASK_WORK: [&str; 2] = [
    "bpf_task_work_schedule_resume_impl",
    "bpf_task_work_schedule_resume",
];

/// What the kernel can do.
#[derive(Debug)]
pub(crate) struct Features {
    /// Walks can be deferred to task work.
    pub(crate) task_work: bool,
    /// Why a hook cannot be used; nothing where it may be.
    refusals: Vec<(Hook, String)>,
}

/// Asks, the first time.
pub(crate) fn features() -> &'static Features {
    static FEATURES: OnceLock<Features> = OnceLock::new();
    FEATURES.get_or_init(Features::ask)
}

impl Features {
    fn ask() -> Features {
        let Ok(btf) = Btf::from_vmlinux() else {
            // Loading will fail by itself, and say why.
            return Features {
                task_work: false,
                refusals: Vec::new(),
            };
        };
        let function = |name: &str| btf.type_by_name::<Func<'_>>(name);
        let modify = |name: &str, flags| match function(name) {
            Some(function) => may_modify_return(u32::from(function.type_id()), flags),
            None => Err(format!("the kernel has no {name}")),
        };
        let answers = [
            (
                Hook::SystemCall,
                modify("__x64_sys_prctl", libbpf_sys::BPF_F_SLEEPABLE),
            ),
            (Hook::Security, modify("security_task_prctl", 0)),
            (
                Hook::Unknown,
                match btf.type_by_name::<Typedef<'_>>("btf_trace_task_prctl_unknown") {
                    Some(_) => Ok(()),
                    None => Err("the kernel has no such tracepoint (Linux 6.13)".into()),
                },
            ),
        ];
        let refusals = answers
            .into_iter()
            .filter_map(|(hook, answer)| Some((hook, answer.err()?)))
            .collect();
        Features {
            task_work: TASK_WORK.iter().any(|name| function(name).is_some()),
            refusals,
        }
    }

    /// Whether a hook may be used, as far as is known.
    pub(crate) fn hook(&self, hook: Hook) -> Result<(), &str> {
        let refusal = self.refusals.iter().find(|(refused, _)| *refused == hook);
        refusal.map_or(Ok(()), |(_, why)| Err(why))
    }
}

/// Whether a program may change what this kernel function returns: tried with one that does nothing.
fn may_modify_return(function: u32, flags: u32) -> Result<(), String> {
    // Linux BPF instruction set: `r0 = 0; exit`.
    let program = [
        libbpf_sys::bpf_insn {
            code: 0xb7,
            ..libbpf_sys::bpf_insn::default()
        },
        libbpf_sys::bpf_insn {
            code: 0x95,
            ..libbpf_sys::bpf_insn::default()
        },
    ];
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
        expected_attach_type: libbpf_sys::BPF_MODIFY_RETURN,
        attach_btf_id: function,
        prog_flags: flags,
        attempts: 1,
        ..libbpf_sys::bpf_prog_load_opts::default()
    };
    // SAFETY: strings end in 0, `program` has as many instructions as is said, `options` says its own size, and
    // all of them outlive the call.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_TRACING,
            c"framewalk_probe".as_ptr(),
            c"Dual BSD/GPL".as_ptr(),
            program.as_ptr(),
            program.len() as libbpf_sys::size_t,
            &raw mut options,
        )
    };
    if fd < 0 {
        return Err(std::io::Error::from_raw_os_error(-fd).to_string());
    }
    // SAFETY: a new descriptor of nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}
