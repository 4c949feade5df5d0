//! See `sealane_fuzz_proxy::heads::http2`.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| sealane_fuzz_proxy::heads::http2(text));
