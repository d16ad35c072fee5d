//! scratch
use framewalk_kernel::*;
fn main() {
    let mode = match std::env::args().nth(1).as_deref() { Some("immediate") => Mode::Immediate, Some("always") => Mode::DeferredAlways, _ => Mode::Deferred };
    libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Warn, |_, s| eprint!("{s}"))));
    match Sampler::load(Options { mode: Some(mode), max_frames: 510 }) {
        Ok(s) => println!("{s:?} {:?}", s.counts()),
        Err(e) => println!("{e} {e:?}"),
    }
}
