//! The skeletons that libbpf-cargo generates from `bpf/*.bpf.c`: generated code is fenced in here.
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    unused_lifetimes,
    unused_imports,
    dead_code,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]

pub(crate) mod sampler {
    include!(concat!(env!("OUT_DIR"), "/sampler.skel.rs"));
}
pub(crate) mod announce {
    include!(concat!(env!("OUT_DIR"), "/announce.skel.rs"));
}
pub(crate) use sampler::types;
pub(crate) mod look {
    include!(concat!(env!("OUT_DIR"), "/look.skel.rs"));
}
