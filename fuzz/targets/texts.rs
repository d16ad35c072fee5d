//! What /proc, perf maps and the rings of events say.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| framewalk_fuzz::texts(data));
