//! See `sealane_fuzz_proxy::heads::asked_for`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sealane_fuzz_proxy::heads::asked_for(bytes));
