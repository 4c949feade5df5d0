//! ClientHellos as clients send them, as they must not, and whom they lead to.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn with_length_of_2(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_length_of_2(data)].concat()
}

fn host_name(name: &[u8]) -> Vec<u8> {
    [&[0][..], &with_length_of_2(name)].concat()
}

fn name_extension(name: &[u8]) -> Vec<u8> {
    extension(0, &with_length_of_2(&host_name(name)))
}

/// The message without its head.
fn body(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(32);
    body.extend([9; 32]);
    body.extend(with_length_of_2(&[0x13, 0x01, 0x0a, 0x0a]));
    body.extend([1, 0]);
    body.extend(with_length_of_2(extensions));
    body
}

fn message_of(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO][..], &length[1..], body].concat()
}

fn records(message: &[u8], fragment: usize) -> Vec<u8> {
    let records = message.chunks(fragment).map(|part| {
        let head = [HANDSHAKE, 3, 1];
        [&head[..], &with_length_of_2(part)].concat()
    });
    records.collect::<Vec<_>>().concat()
}

fn hello_with(extensions: &[u8]) -> Vec<u8> {
    records(&message_of(&body(extensions)), RECORD_BYTES_MAX)
}

fn name_in(bytes: &[u8]) -> Result<Option<String>, HelloError> {
    Ok(parse(bytes)?.expect("a whole hello").server_name)
}

/// As rustls sends it, post-quantum keys and all.
fn real_hello(name: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_name_is_found_in_a_real_hello() {
    let name = name_in(&real_hello("db.example.com"));
    assert_eq!(name, Ok(Some("db.example.com".to_owned())));
    // rustls names no server for an address.
    assert_eq!(name_in(&real_hello("192.0.2.1")), Ok(None));
}

#[test]
fn names_are_compared_in_lower_case_and_an_address_is_no_name() {
    let name = |name: &str| name_in(&hello_with(&name_extension(name.as_bytes())));
    assert_eq!(
        name("DB.Example.COM"),
        Ok(Some("db.example.com".to_owned()))
    );
    assert_eq!(name("a_b.example"), Ok(Some("a_b.example".to_owned())));
    assert_eq!(name("192.0.2.1"), Ok(None));
    assert_eq!(name("2001:db8::1"), Ok(None));
    assert_eq!(name_in(&hello_with(&[])), Ok(None));
}

#[test]
fn a_hello_without_extensions_is_lawful() {
    let mut old = body(&[]);
    old.truncate(old.len() - 2);
    assert_eq!(name_in(&records(&message_of(&old), 100)), Ok(None));
}

#[test]
fn grease_and_an_encrypted_hello_are_passed_over() {
    // GREASE (RFC 8701), encrypted_client_hello (RFC 9849 §5), padding.
    let extensions = [
        extension(0x0a0a, &[]),
        extension(0xfe0d, &[0; 200]),
        name_extension(b"public.example.com"),
        extension(21, &[0; 300]),
    ];
    let name = name_in(&hello_with(&extensions.concat()));
    assert_eq!(name, Ok(Some("public.example.com".to_owned())));
}

#[test]
fn what_is_no_lawful_hello_is_refused() {
    let list = |list: &[u8]| hello_with(&extension(0, list));
    let two = [host_name(b"a.test"), host_name(b"b.test")].concat();
    let changed = |at: usize, to: u8| {
        let mut message = message_of(&body(&name_extension(b"a.test")));
        message[at] = to;
        records(&message, RECORD_BYTES_MAX)
    };
    let cases = [
        ("two names", list(&with_length_of_2(&two))),
        ("an empty list", list(&with_length_of_2(&[]))),
        ("no list", list(&[])),
        (
            "more behind the list",
            list(&[with_length_of_2(&host_name(b"a.test")), vec![0]].concat()),
        ),
        (
            "two server_names",
            hello_with(&[name_extension(b"a.test"), name_extension(b"b.test")].concat()),
        ),
        ("an empty name", hello_with(&name_extension(b""))),
        ("a final dot", hello_with(&name_extension(b"a.test."))),
        ("an empty label", hello_with(&name_extension(b"a..test"))),
        ("a NUL", hello_with(&name_extension(b"a.test\0.b.test"))),
        ("no ASCII", hello_with(&name_extension("ä.test".as_bytes()))),
        ("a long label", hello_with(&name_extension(&[b'a'; 64]))),
        ("an extension cut short", hello_with(&[0, 0, 0, 9, 1])),
        ("another message", changed(0, 2)),
        ("a session of 33 bytes", changed(4 + 34, 33)),
        ("an odd list of suites", changed(4 + 34 + 33 + 1, 3)),
        (
            "a longer message",
            changed(3, 200)
                .into_iter()
                .chain(vec![22, 3, 1, 0, 0])
                .collect(),
        ),
        ("an alert", vec![21, 3, 1, 0, 2, 1, 0]),
        ("SSL 2", vec![0x80, 0x2e, 1, 3, 1]),
        ("HTTP", b"GET / HTTP/1.1\r\n".to_vec()),
        ("an empty record", vec![22, 3, 1, 0, 0]),
        ("a record that is too long", vec![22, 3, 1, 0x40, 1]),
        (
            "a message that is too long",
            vec![22, 3, 1, 0, 9, 1, 1, 0, 0],
        ),
    ];
    for (what, bytes) in cases {
        assert!(parse(&bytes).is_err(), "{what}: {:?}", parse(&bytes));
    }
}

#[test]
fn a_hello_that_never_ends_is_refused() {
    let mut bytes = records(&message_of(&body(&[])), 1);
    bytes.truncate(6 * 40);
    // Records of one byte, of a message that promises more.
    let mut long = vec![];
    for byte in [1, 0, 0x3f, 0xff] {
        long.extend([22, 3, 1, 0, 1, byte]);
    }
    while long.len() < HELLO_BYTES_MAX {
        assert_eq!(parse(&long), Ok(None));
        long.extend([22, 3, 1, 0, 1, 7].repeat(100));
    }
    assert_eq!(parse(&long), Err(HelloError::TooLong));
}

proptest! {
    #[test]
    fn however_it_is_cut_into_records_the_name_is_the_same(
        fragment in 1_usize..600,
        name in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,20}){1,4}",
    ) {
        let bytes = records(&message_of(&body(&name_extension(name.as_bytes()))), fragment);
        for cut in 0..bytes.len() {
            prop_assert_eq!(parse(&bytes[..cut]), Ok(None));
        }
        let is_address = name.parse::<IpAddr>().is_ok();
        prop_assert_eq!(name_in(&bytes), Ok((!is_address).then_some(name)));
    }

    #[test]
    fn any_bytes_are_a_hello_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        // Neither this nor any part of it panics.
        let _ = parse(&bytes);
        let _ = parse(&records(&bytes, 70));
        let _ = parse(&records(&message_of(&bytes), 70));
        let _ = parse(&hello_with(&bytes));
        let _ = parse(&hello_with(&extension(0, &bytes)));
    }
}
