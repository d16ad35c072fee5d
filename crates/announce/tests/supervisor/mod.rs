//! Answers the two calls of the ABI in the kernel's place, for threads and the programs that they start: a seccomp
//! filter hands just these calls to us (user notification), and we answer what a test wants.
#![allow(unsafe_code)]
// Several test programs use this module, and none uses all of it.
#![allow(dead_code)]

use framewalk_announce::abi::{REGISTER, UNREGISTER};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A call that somebody made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// The thread.
    pub(crate) thread: u32,
    pub(crate) option: u32,
    pub(crate) key: u64,
    /// The other three arguments.
    pub(crate) rest: [u64; 3],
}

impl Call {
    pub(crate) fn registers(&self) -> bool {
        self.option == REGISTER
    }
}

/// What it gets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    Value(i64),
    Errno(i32),
    /// The kernel shall answer.
    Kernel,
}

/// What the filter does beside.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filter {
    /// Refuses the question whether memory can be read, with EPERM.
    pub(crate) refuses_questions: bool,
    /// Lets programs gain privileges (set-user-id); only root may have such a filter.
    pub(crate) lets_privileges: bool,
}

/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs `work` on a thread of its own. Its calls, and those of all threads and programs that it starts, are answered
/// by `answer`, until the last of them has ended. Err if there can be no such filter here.
pub(crate) fn supervised<T: Send>(
    filter: Filter,
    work: impl FnOnce() -> T + Send,
    mut answer: impl FnMut(&Call) -> Reply,
) -> Result<(T, Vec<Call>), String> {
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let listener = install(filter);
            let installed = listener.is_ok();
            send.send(listener).expect("the supervisor waits");
            installed.then(work)
        });
        let listener = receive.recv().expect("the worker tells");
        let calls = listener.map(|listener| serve(&listener, &mut answer));
        // The listener is closed: whoever is still waiting for an answer gets ENOSYS.
        let result = worker.join().expect("the work is done");
        match calls {
            Ok(calls) => Ok((
                result.expect("a filter"),
                calls.expect("all programs ended"),
            )),
            Err(error) => Err(format!("no filter with notification: {error}")),
        }
    })
}

/// Answers until nobody is left who could call. None if that takes too long.
fn serve(listener: &OwnedFd, answer: &mut impl FnMut(&Call) -> Reply) -> Option<Vec<Call>> {
    let deadline = Instant::now() + PATIENCE;
    let mut calls = Vec::new();
    while Instant::now() < deadline {
        let mut poll = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd.
        unsafe { libc::poll(&raw mut poll, 1, 1000) };
        if poll.revents & libc::POLLIN != 0 {
            let Some((id, call)) = hear(listener) else {
                continue;
            };
            calls.push(call);
            say(listener, id, answer(&call));
        } else if poll.revents & libc::POLLHUP != 0 {
            return Some(calls);
        }
    }
    None
}

/// None if the caller was interrupted or killed meanwhile.
fn hear(listener: &OwnedFd) -> Option<(u64, Call)> {
    // SAFETY: all zeros is a notification, and what the kernel wants to be given.
    let mut heard: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    let request = libc::SECCOMP_IOCTL_NOTIF_RECV;
    // SAFETY: the request fills in such a struct.
    if unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut heard) } != 0 {
        return None;
    }
    let [option, key, rest @ .., _] = heard.data.args;
    let call = Call {
        thread: heard.pid,
        // An int, to the kernel.
        option: option as u32,
        key,
        rest,
    };
    Some((heard.id, call))
}

fn say(listener: &OwnedFd, id: u64, reply: Reply) {
    let (val, error, flags) = match reply {
        Reply::Value(value) => (value, 0, 0),
        Reply::Errno(errno) => (0, -errno, 0),
        Reply::Kernel => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
    };
    let response = libc::seccomp_notif_resp {
        id,
        val,
        error,
        flags,
    };
    // SAFETY: the request reads such a struct. Who is gone needs no answer.
    unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw const response,
        )
    };
}

/// Installs the filter for this thread and whatever it starts.
fn install(filter: Filter) -> io::Result<OwnedFd> {
    let mut rules = vec![
        (libc::SYS_prctl, REGISTER, libc::SECCOMP_RET_USER_NOTIF),
        (libc::SYS_prctl, UNREGISTER, libc::SECCOMP_RET_USER_NOTIF),
    ];
    if filter.refuses_questions {
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        // What `readable` asks to be done with a set of signals.
        rules.push((libc::SYS_rt_sigprocmask, u32::MAX, refused));
    }
    let mut program = program(&rules);
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    if !filter.lets_privileges {
        // SAFETY: no memory is involved.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    }
    // SAFETY: the kernel copies the program.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    match i32::try_from(listener) {
        // SAFETY: a new descriptor, which is ours.
        Ok(listener) if listener >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(listener) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// For each rule: a system call whose first argument, as an int, is this gets that action. All others are allowed.
fn program(rules: &[(libc::c_long, u32, u32)]) -> Vec<libc::sock_filter> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let end = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    let mut program = Vec::new();
    for &(number, argument, action) in rules {
        program.extend([
            // struct seccomp_data: the number at 0, the first argument's lower half at 16.
            step(load, 0, 0),
            step(equal, number as u32, 3),
            step(load, 16, 0),
            step(equal, argument, 1),
            step(end, action, 0),
        ]);
    }
    program.push(step(end, libc::SECCOMP_RET_ALLOW, 0));
    program
}
