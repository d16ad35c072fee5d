//! What is stepped.

mod build;

use crate::amd64::Begin;
use crate::phases::Phase;
pub use build::build;
pub(crate) use build::compile;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program: its name, its command, its part of the boundaries, and what has to be met in it.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The name in the table.
    pub name: &'static str,
    /// `@SOURCE` is what is built of `oracle/programs/SOURCE`, `%FILE` a file of the workspace.
    pub command: &'static [&'static str],
    /// More of its environment.
    pub environment: &'static [(&'static str, &'static str)],
    /// Its share, in parts of all programs' shares together.
    pub share: u64,
    /// Where stepping begins.
    pub begin: Begin,
    /// What it is for.
    pub phases: &'static [Phase],
    /// Boundaries within which all of that is met, if they are so few that continuous integration can see to it.
    pub soon: Option<u64>,
}

const fn program(
    name: &'static str,
    share: u64,
    command: &'static [&'static str],
    phases: &'static [Phase],
) -> Program {
    Program {
        name,
        command,
        environment: &[],
        share,
        begin: Begin::Entry,
        phases,
        soon: None,
    }
}

impl Program {
    const fn begin(self, begin: Begin) -> Program {
        Program { begin, ..self }
    }

    const fn soon(self, boundaries: u64) -> Program {
        let soon = Some(boundaries);
        Program { soon, ..self }
    }

    const fn with(self, environment: &'static [(&'static str, &'static str)]) -> Program {
        Program {
            environment,
            ..self
        }
    }
}

const fn symbol(name: &'static str) -> Phase {
    Phase::Symbol(name)
}

const fn instruction(names: &'static [&'static str]) -> Phase {
    Phase::Instruction(names)
}

/// What saves all registers in the dynamic loader: the resolver of lazily bound calls.
const RESOLVER: Phase = instruction(&["xsavec", "xsavec64", "xsave", "xsave64", "fxsave64"]);
/// Copies that pass the caches by begin at the smallest size that libc allows.
const SMALL_CACHES: &str = "glibc.cpu.x86_non_temporal_threshold=16512";
/// What libc chooses on a processor without these.
const OLD: &str = "glibc.cpu.x86_non_temporal_threshold=16512:glibc.cpu.hwcaps=-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-EVEX,-ERMS,-FSRM,-SSE4_2,-BMI2";
/// Rounds of a program that ends when it has been stepped often enough.
const ROUNDS: &str = "1000000";

/// Much of the interpreter, in a thread.
const WORK: &str = "
import threading, json, re, hashlib, zlib, decimal, struct
def fail(n):
    if n == 0:
        raise ValueError('end')
    try:
        fail(n - 1)
    finally:
        str(n)
def work():
    while True:
        words = sorted(str(i * 7919 % 1000) for i in range(300))
        json.loads(json.dumps({'words': words, 'half': [n / 2 for n in range(50)]}))
        re.sub(r'(\\d)(\\d+)', r'\\2\\1', ' '.join(words))
        zlib.decompress(zlib.compress(' '.join(words).encode()))
        sum(decimal.Decimal(n).sqrt() for n in range(5))
        struct.unpack('<4d', struct.pack('<4d', 1, 2, 3, 4))
        try:
            fail(20)
        except ValueError:
            pass
thread = threading.Thread(target=work, daemon=True)
thread.start()
thread.join()";

/// Hashes by libcrypto's assembly, in a thread.
const DIGESTS: &str = "
import threading, hashlib, hmac
names = ('md5', 'sha1', 'sha256', 'sha512', 'sha3_256', 'blake2b')
for name in names:
    hashlib.new(name, b'').digest()
def work():
    while True:
        for name in names:
            hashlib.new(name, b'x' * 700).hexdigest()
            hmac.new(b'key', b'x' * 100, name).digest()
thread = threading.Thread(target=work, daemon=True)
thread.start()
thread.join()";

/// All of them.
pub const PROGRAMS: &[Program] = &[
    program(
        "loader",
        30,
        &["@stacks.c", "jumps", "1"],
        &[
            symbol("_start"),
            symbol("main"),
            symbol("exit"),
            symbol("_exit"),
        ],
    )
    .begin(Begin::Exec),
    program(
        "binding",
        1,
        &["@stacks.c", "binding", "1"],
        &[RESOLVER, symbol("bound"), symbol("_exit")],
    )
    .soon(9000),
    program(
        "jumps",
        2,
        &["@stacks.c", "jumps", ROUNDS],
        &[symbol("_setjmp"), symbol("longjmp"), symbol("deep")],
    )
    .soon(2000),
    program(
        "signals",
        2,
        &["@stacks.c", "signals", ROUNDS],
        &[symbol("handle"), symbol("siglongjmp"), symbol("raise")],
    )
    .soon(2000),
    program(
        "alternate",
        2,
        &["@stacks.c", "alternate", ROUNDS],
        &[
            symbol("sigaltstack"),
            symbol("handle"),
            symbol("siglongjmp"),
        ],
    )
    .soon(2000),
    program(
        "contexts",
        1,
        &["@stacks.c", "contexts", ROUNDS],
        &[
            symbol("makecontext"),
            symbol("swapcontext"),
            symbol("coroutine"),
        ],
    )
    .soon(2000),
    program(
        "children",
        3,
        &["@stacks.c", "children", ROUNDS],
        &[
            symbol("vfork"),
            symbol("fork"),
            symbol("posix_spawn"),
            Phase::Exec,
        ],
    )
    .soon(25000),
    program(
        "threads",
        20,
        &["@stacks.c", "threads", ROUNDS],
        &[
            symbol("pthread_create"),
            symbol("thread"),
            symbol("pthread_join"),
        ],
    )
    .soon(9000),
    program(
        "vdso",
        6,
        &["@stacks.c", "vdso", ROUNDS],
        &[
            symbol("__vdso_clock_gettime"),
            symbol("__vdso_gettimeofday"),
            symbol("__vdso_getcpu"),
            symbol("__vdso_time"),
        ],
    )
    .soon(2000),
    program(
        "strings",
        100,
        &["@strings.c", ROUNDS],
        &[
            instruction(&["vpcmpeqb", "pcmpeqb"]),
            instruction(&["movsb", "movntdq", "vmovntdq"]),
            symbol("medium"),
            symbol("large"),
            symbol("huge"),
            symbol("done"),
        ],
    )
    .with(&[("GLIBC_TUNABLES", SMALL_CACHES)]),
    program(
        "strings-sse2",
        100,
        &["@strings.c", ROUNDS],
        &[
            instruction(&["pcmpeqb"]),
            instruction(&["movsb", "movntdq"]),
            symbol("medium"),
            symbol("large"),
            symbol("huge"),
            symbol("done"),
        ],
    )
    .with(&[("GLIBC_TUNABLES", OLD)]),
    program(
        "torture",
        100,
        &["@dev/targets/torture.c", "300"],
        &[
            symbol("r_leaf"),
            symbol("m_leaf"),
            symbol("large_leaf"),
            symbol("compared"),
            symbol("never_2"),
            symbol("handled_2"),
            symbol("elsewhere_2"),
            symbol("signal_leaf"),
            symbol("other_leaf"),
            symbol("plugin_2"),
            symbol("from_plugin"),
            symbol("thread_3"),
        ],
    ),
    program(
        "throws",
        60,
        &["@throws.cc", ROUNDS],
        &[
            symbol("__cxa_throw"),
            symbol("__cxa_rethrow"),
            symbol("_Unwind_RaiseException"),
            symbol("_Unwind_Resume"),
            symbol("done"),
        ],
    ),
    program(
        "panics",
        60,
        &["@panics.rs", ROUNDS],
        &[
            symbol("panicking"),
            symbol("_Unwind_RaiseException"),
            symbol("_Unwind_Resume"),
            symbol("done"),
        ],
    ),
    program(
        "crypto",
        30,
        &["@crypto.c", ROUNDS],
        &[
            instruction(&["aesenc", "vaesenc"]),
            instruction(&["pclmulqdq", "vpclmulqdq"]),
            symbol("EVP_DigestUpdate"),
            symbol("numbers"),
        ],
    )
    .begin(Begin::Thread),
    program(
        "ls",
        80,
        &["/bin/ls", "-lR", "/etc"],
        &[symbol("opendir"), symbol("readdir"), symbol("closedir")],
    ),
    program(
        "sort",
        60,
        &["/usr/bin/sort", "-k2", "%Cargo.lock"],
        &[symbol("posix_fadvise"), symbol("realloc")],
    ),
    program(
        "sha256sum",
        60,
        &["/usr/bin/sha256sum", "%Cargo.lock"],
        &[symbol("fread_unlocked")],
    )
    .soon(10000),
    program(
        "python",
        300,
        &["/usr/bin/python3", "-c", "pass"],
        &[symbol("Py_BytesMain")],
    ),
    program(
        "python-work",
        500,
        &["/usr/bin/python3", "-c", WORK],
        &[
            symbol("_PyEval_EvalFrameDefault"),
            symbol("PyErr_SetObject"),
        ],
    )
    .begin(Begin::Thread),
    program(
        "digests",
        5,
        &["/usr/bin/python3", "-c", DIGESTS],
        &[symbol("EVP_DigestUpdate"), symbol("HMAC_Update")],
    )
    .begin(Begin::Thread),
];

/// The workspace's directory.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Program {
    /// Its command, ready to start; built into a directory where it has to be. Why not, otherwise.
    ///
    /// All calls are bound at the beginning but in the program that is about binding them: lazily, each is bound once in
    /// the life of a process, which would be much in the short lives that are stepped.
    pub fn prepare(&self, directory: &Path) -> Result<Command, String> {
        let [first, rest @ ..] = self.command else {
            return Err("no command".into());
        };
        let path = match first.strip_prefix('@') {
            Some(source) => build(source, directory)?,
            None => PathBuf::from(first),
        };
        if !path.exists() {
            return Err(format!("there is no {}", path.display()));
        }
        let mut command = Command::new(path);
        for word in rest {
            match word.strip_prefix('%') {
                Some(file) => command.arg(workspace().join(file)),
                None => command.arg(word),
            };
        }
        command.env_clear().env("LC_ALL", "C");
        command.env("PYTHONHASHSEED", "0");
        if !self.phases.contains(&RESOLVER) {
            command.env("LD_BIND_NOW", "1");
        }
        command.envs(self.environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    }
}
