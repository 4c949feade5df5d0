//! See `sealane_fuzz_proxy::codec::chunked`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sealane_fuzz_proxy::codec::chunked(bytes));
