//! The registry of what processes announce.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| framewalk_fuzz::registry(data));
