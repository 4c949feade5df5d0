//! See `sealane_fuzz_h1::answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sealane_fuzz_h1::answer(bytes));
