//! Any bytes as a PROXY header: never a panic, never more than there is; what is known of a header
//! stays the same whatever follows it, and addresses that were read are written so that they read back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sealane_model::ProxyVersion;
use sealane_fuzz_proxy::proxy_protocol::{Header, V2_BYTES_MAX, compose, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    for cut in [bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        match parse(&bytes[..cut]) {
            Ok(None) => {}
            decided => assert_eq!(decided, whole),
        }
    }
    match whole {
        Ok(None) => assert!(bytes.len() < V2_BYTES_MAX),
        Ok(Some((header, length))) => {
            assert!((8..=bytes.len()).contains(&length));
            let Header::Proxied(addresses) = header else {
                return;
            };
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let again = compose(version, addresses);
                assert_eq!(parse(&again), Ok(Some((header, again.len()))));
            }
        }
        Err(_) => {}
    }
});
