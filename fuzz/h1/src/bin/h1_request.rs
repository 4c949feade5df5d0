//! See `sealane_fuzz_h1::request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sealane_fuzz_h1::request(bytes));
