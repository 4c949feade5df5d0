//! Any bytes as the beginning of a TLS connection: never a panic; what is known of a hello stays the same
//! whatever follows it, and what is refused stays refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sealane_fuzz_proxy::sni::{HELLO_BYTES_MAX, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    if let Ok(Some(hello)) = &whole
        && let Some(name) = &hello.server_name
    {
        assert!(!name.is_empty() && name.len() <= 253);
        assert!(!name.ends_with('.') && !name.contains('\0'));
        assert_eq!(*name, name.to_ascii_lowercase());
    }
    assert!(!(bytes.len() >= HELLO_BYTES_MAX && whole == Ok(None)));
    // As it comes, piece by piece.
    for cut in [bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        match parse(&bytes[..cut]) {
            Ok(None) => {}
            decided => assert_eq!(decided, whole),
        }
    }
});
