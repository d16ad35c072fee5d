//! What libbpf had to say: the verifier's last words tell why a program was refused.

use crate::error::Error;
use std::sync::Mutex;

static SAID: Mutex<String> = Mutex::new(String::new());
const SAID_BYTES: usize = 2000;

/// From now on it is remembered, and not printed.
pub(crate) fn listen() {
    libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Warn, remember)));
}

fn remember(_: libbpf_rs::PrintLevel, text: String) {
    if let Ok(mut said) = SAID.lock() {
        said.push_str(&text);
        let mut cut = said.len().saturating_sub(SAID_BYTES);
        while !said.is_char_boundary(cut) {
            cut += 1;
        }
        said.drain(..cut);
    }
}

/// The error, with what was said until now.
pub(crate) fn refused(error: libbpf_rs::Error) -> Error {
    let said = SAID
        .lock()
        .map(|mut said| std::mem::take(&mut *said))
        .unwrap_or_default();
    Error::Load(error, said)
}
