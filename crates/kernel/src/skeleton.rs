//! The skeleton that libbpf-cargo generates from `bpf/sampler.bpf.c`: generated code is fenced in here.
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    unused_lifetimes,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]

include!(concat!(env!("OUT_DIR"), "/sampler.skel.rs"));
