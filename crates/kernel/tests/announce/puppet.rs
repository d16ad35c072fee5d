//! A process that does what it is told: this executable, begun again with the name of a socket in its
//! environment. Each of its threads, and each process that it forks, comes to the socket on its own.
#![allow(unsafe_code)]

use std::io::{Read, Result, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, thread};

/// The environment variable with the name of the socket.
pub(crate) const SOCKET: &str = "FRAMEWALK_PUPPET";

/// What it can be told, each with a body of words. It answers a result, or an errno below 0, and a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Order {
    /// A system call: number and six arguments.
    Call = 1,
    /// prctl(2) with each five words of the body. Answers all results in a body.
    Prctls,
    /// Begins another thread, which comes to the socket.
    Thread,
    /// fork(2). The child, whose pid is answered, comes to the socket.
    Fork,
    /// A process that shares this one's memory and comes to the socket. Its pid is answered when it has ended or
    /// executed another program: this thread waits so long, as with vfork(2).
    Vfork,
    /// execve(2) of this executable, which then comes to the socket.
    Exec,
}

const ORDERS: [Order; 6] = [
    Order::Call,
    Order::Prctls,
    Order::Thread,
    Order::Fork,
    Order::Vfork,
    Order::Exec,
];

/// Bytes of one prctl(2) in a body.
pub(crate) const PRCTL_BYTES: usize = 5 * 8;

/// Before main, so that nothing of the test harness is in the process.
#[used]
// SAFETY: such a function is called once, before main, when the C library is ready; std needs no more.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    if env::var_os(SOCKET).is_none() {
        return;
    }
    // SAFETY: no handler. Nobody waits for children.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    perform();
    exit()
}

/// Ends this thread, and the process with its last one.
fn exit() -> ! {
    syscall(libc::SYS_exit, [0; 6]);
    unreachable!("a thread that has ended")
}

fn connect() -> Result<UnixStream> {
    let name = env::var(SOCKET).unwrap_or_default();
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    let ids = [
        syscall(libc::SYS_getpid, [0; 6]),
        syscall(libc::SYS_gettid, [0; 6]),
    ];
    send(&mut stream, 0, &ids.map(i64::to_ne_bytes).concat())?;
    Ok(stream)
}

/// Comes to the socket and does what it is told there until nobody is left to tell.
fn perform() {
    if let Ok(mut stream) = connect() {
        while follow(&mut stream).is_ok() {}
    }
}

fn follow(stream: &mut UnixStream) -> Result<()> {
    let (order, body) = receive(stream)?;
    let order = ORDERS.into_iter().find(|&known| known as u64 == order);
    match order.expect("orders are known") {
        Order::Call => {
            let [number, arguments @ ..] = words::<7>(&body);
            send(stream, syscall(number as i64, arguments) as u64, &[])
        }
        Order::Prctls => {
            let calls = body.chunks_exact(PRCTL_BYTES).map(|call| {
                let [option, a, b, c, d] = words(call);
                syscall(libc::SYS_prctl, [option, a, b, c, d, 0])
            });
            let results: Vec<u8> = calls.flat_map(i64::to_ne_bytes).collect();
            send(stream, 0, &results)
        }
        Order::Thread => {
            thread::spawn(perform);
            send(stream, 0, &[])
        }
        Order::Fork => {
            // SAFETY: the child uses only what fork(2) leaves usable: its own thread, and memory, which glibc keeps
            // usable.
            match unsafe { libc::fork() } {
                0 => born(),
                pid => send(stream, i64::from(pid) as u64, &[]),
            }
        }
        Order::Vfork => {
            let mut stack = vec![0u128; 1 << 14];
            // SAFETY: the child has a stack of its own; this thread, whose thread-local memory it uses, stands still
            // until it has ended or executed another program, and so does the end of the stack's life.
            let pid = unsafe {
                libc::clone(
                    share,
                    stack.as_mut_ptr_range().end.cast(),
                    libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
                    std::ptr::null_mut(),
                )
            };
            send(stream, i64::from(pid) as u64, &[])
        }
        Order::Exec => {
            let error = Command::new("/proc/thread-self/exe").exec();
            send(
                stream,
                -i64::from(error.raw_os_error().unwrap_or(0)) as u64,
                &[],
            )
        }
    }
}

extern "C" fn share(_: *mut libc::c_void) -> libc::c_int {
    born()
}

/// The life of a new process.
fn born() -> ! {
    // The parent's connections shall end with the parent. These files are this process's own.
    syscall(libc::SYS_close_range, [3, u32::MAX.into(), 0, 0, 0, 0]);
    perform();
    exit()
}

/// Sends a word and a body.
pub(crate) fn send(stream: &mut UnixStream, word: u64, body: &[u8]) -> Result<()> {
    let head = [word, body.len() as u64].map(u64::to_ne_bytes).concat();
    stream.write_all(&[&head, body].concat())
}

/// Receives them.
pub(crate) fn receive(stream: &mut UnixStream) -> Result<(u64, Vec<u8>)> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let [word, len] = words(&head);
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body)?;
    Ok((word, body))
}

/// As many words as there are, 0 where there are no more.
pub(crate) fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut chunks = bytes.chunks_exact(8);
    [(); N].map(|()| {
        let word = chunks.next().and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_ne_bytes)
    })
}

fn syscall(number: i64, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    // SAFETY: who gives the order answers for it: maps that nobody uses, and calls that touch no memory.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    match result {
        -1 => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        result => result,
    }
}

/// Reads the memory of a thread's process as that could itself; false where not all of it can be.
pub(crate) fn read(tid: u32, address: u64, into: &mut [u8]) -> bool {
    let here = [libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    }];
    let there = [libc::iovec {
        iov_base: address as *mut _,
        iov_len: into.len(),
    }];
    // SAFETY: `here` is memory of ours that is written; `there` is only a number.
    let read = unsafe {
        libc::process_vm_readv(tid.cast_signed(), here.as_ptr(), 1, there.as_ptr(), 1, 0)
    };
    read == into.len() as isize
}

/// Writes it; false where not all of it can be.
pub(crate) fn write(tid: u32, address: u64, bytes: &[u8]) -> bool {
    let here = [libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }];
    let there = [libc::iovec {
        iov_base: address as *mut _,
        iov_len: bytes.len(),
    }];
    // SAFETY: `here` is only read; `there` is only a number.
    let written = unsafe {
        libc::process_vm_writev(tid.cast_signed(), here.as_ptr(), 1, there.as_ptr(), 1, 0)
    };
    written == bytes.len() as isize
}
