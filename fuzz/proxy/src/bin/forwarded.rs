//! See `sealane_fuzz_proxy::heads::forwarded`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sealane_fuzz_proxy::heads::forwarded(bytes));
