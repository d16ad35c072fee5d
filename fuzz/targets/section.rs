//! Reader, check, lookup and writer of sections.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| framewalk_fuzz::section(data));
