//! ELF files, whoever made them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| framewalk_fuzz::files(data));
