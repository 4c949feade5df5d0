//! Headers read, written, refused, and taken off a socket.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn proxied(source: &str, destination: &str) -> Header {
    Header::Proxied(addresses(source, destination))
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    header.extend(body);
    header
}

const V4_BODY: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x30, 0x39, 0x01, 0xbb];

#[test]
fn version_1_is_read_up_to_its_line_s_end() {
    let cases: [(&str, Header); 6] = [
        (
            "PROXY TCP4 192.0.2.1 192.0.2.2 12345 443\r\n",
            proxied("192.0.2.1:12345", "192.0.2.2:443"),
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n",
            proxied("[2001:db8::1]:0", "[2001:db8::2]:65535"),
        ),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
             ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            proxied(
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            ),
        ),
        ("PROXY UNKNOWN\r\n", Header::Local),
        ("PROXY UNKNOWN whatever it says\r\n", Header::Local),
        ("PROXY UNKNOWN \r\n", Header::Local),
    ];
    for (text, wanted) in cases {
        let with_more = format!("{text}GET / HTTP/1.1\r\n");
        assert_eq!(
            parse(with_more.as_bytes()),
            Ok(Some((wanted, text.len()))),
            "{text:?}"
        );
    }
}

#[test]
fn what_is_no_lawful_version_1_is_refused() {
    let cases = [
        "PROXY\r\n",
        "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2  2\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 2001:db8::2 1 2\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
        "PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY \u{e9}\r\n",
    ];
    for text in cases {
        assert!(parse(text.as_bytes()).is_err(), "{text:?}");
    }
    for text in [
        "GET / HTTP/1.1\r\n",
        "\u{16}\u{3}\u{1}",
        "PROXy ",
        "\r\n\r\nX",
    ] {
        assert_eq!(
            parse(text.as_bytes()),
            Err(HeaderError::Missing),
            "{text:?}"
        );
    }
    let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
    assert_eq!(parse(&endless), Err(HeaderError::TooLong));
    assert_eq!(parse(&endless[..V1_BYTES_MAX - 1]), Ok(None));
}

#[test]
fn version_2_is_read_with_all_that_is_attached_to_it() {
    let v6_body = {
        let mut body = [0; 36];
        body[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        body[15] = 1;
        body[31] = 2;
        body[35] = 80;
        body
    };
    // An authority, padding, and something of a type that nobody knows.
    let attached = [&V4_BODY[..], &[2, 0, 1, b'a', 4, 0, 0, 0xee, 0, 2, 1, 2]].concat();
    let unix = [0; 216];
    let cases = [
        (
            v2(0x21, 0x11, &V4_BODY),
            proxied("192.0.2.1:12345", "192.0.2.2:443"),
        ),
        (
            v2(0x21, 0x11, &attached),
            proxied("192.0.2.1:12345", "192.0.2.2:443"),
        ),
        (
            v2(0x21, 0x21, &v6_body),
            proxied("[2001:db8::1]:0", "[::2]:80"),
        ),
        (v2(0x21, 0x31, &unix), Header::Local),
        (v2(0x21, 0x00, &[]), Header::Local),
        (v2(0x20, 0x00, &[]), Header::Local),
        (v2(0x20, 0x11, &V4_BODY), Header::Local),
        (v2(0x20, 0xff, b"anything"), Header::Local),
    ];
    for (bytes, wanted) in cases {
        let with_more = [&bytes[..], b"more"].concat();
        assert_eq!(
            parse(&with_more),
            Ok(Some((wanted, bytes.len()))),
            "{bytes:?}"
        );
    }
}

#[test]
fn what_is_no_lawful_version_2_is_refused() {
    let cases = [
        v2(0x11, 0x11, &V4_BODY),
        v2(0x31, 0x11, &V4_BODY),
        v2(0x22, 0x11, &V4_BODY),
        v2(0x21, 0x12, &V4_BODY),
        v2(0x21, 0x13, &V4_BODY),
        v2(0x21, 0x41, &V4_BODY),
        v2(0x21, 0x21, &V4_BODY),
        v2(0x21, 0x11, &V4_BODY[..11]),
        v2(0x21, 0x11, &[&V4_BODY[..], &[1]].concat()),
        v2(0x21, 0x11, &[&V4_BODY[..], &[1, 0]].concat()),
        v2(0x21, 0x11, &[&V4_BODY[..], &[1, 0, 2, 9]].concat()),
        v2(0x21, 0x11, &[&V4_BODY[..], &[3, 0, 2, 9, 9]].concat()),
    ];
    for bytes in cases {
        assert!(
            matches!(parse(&bytes), Err(HeaderError::Malformed(_))),
            "{bytes:?}"
        );
    }
    let mut long = v2(0x21, 0x11, &V4_BODY);
    long[14] = 0x10;
    assert_eq!(parse(&long), Err(HeaderError::TooLong));
}

#[test]
fn a_checksum_that_is_there_must_be_right() {
    let text = b"0000123456789";
    // The check value of CRC-32C, behind four bytes that count as zeros.
    assert_eq!(crc32c_without(&text[4..], 100), 0xe306_9283);

    let body = [&V4_BODY[..], &[3, 0, 4, 0, 0, 0, 0]].concat();
    let mut header = v2(0x21, 0x11, &body);
    let at = header.len() - 4;
    assert_eq!(parse(&header), Err(HeaderError::Checksum));
    let sum = crc32c_without(&header, at);
    header[at..].copy_from_slice(&sum.to_be_bytes());
    assert!(matches!(parse(&header), Ok(Some((Header::Proxied(_), _)))));
    header[16] ^= 1;
    assert_eq!(parse(&header), Err(HeaderError::Checksum));
}

#[test]
fn what_probes_send_is_local() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let header = version.local_header();
        assert_eq!(parse(header), Ok(Some((Header::Local, header.len()))));
    }
}

#[test]
fn addresses_of_two_families_cannot_be_told() {
    let mixed = addresses("192.0.2.1:1", "[2001:db8::1]:2");
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let header = compose(version, mixed);
        assert_eq!(parse(&header), Ok(Some((Header::Local, header.len()))));
    }
}

prop_compose! {
    fn any_addresses()(
        v4 in any::<bool>(),
        ips in any::<([u8; 16], [u8; 16])>(),
        ports in any::<(u16, u16)>(),
    ) -> Addresses {
        let ip = |bytes: [u8; 16]| match v4 {
            true => ipv4(&bytes[..4]).unwrap(),
            false => ipv6(&bytes).unwrap(),
        };
        Addresses {
            source: SocketAddr::new(ip(ips.0), ports.0),
            destination: SocketAddr::new(ip(ips.1), ports.1),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back_and_every_part_of_it_waits_for_more(
        addresses in any_addresses(),
        version in prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)],
    ) {
        let header = compose(version, addresses);
        prop_assert_eq!(parse(&header), Ok(Some((Header::Proxied(addresses), header.len()))));
        for cut in 0..header.len() {
            prop_assert_eq!(parse(&header[..cut]), Ok(None));
        }
    }

    #[test]
    fn any_bytes_are_a_header_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let lawful = |parsed| !matches!(parsed, Ok(Some((_, length))) if length > bytes.len());
        prop_assert!(lawful(parse(&bytes)));
    }

    #[test]
    fn any_bytes_behind_a_signature_are_a_header_or_not(
        rest in proptest::collection::vec(any::<u8>(), 0..600),
        command in 0x20_u8..0x22,
        family in 0_u8..0x40,
    ) {
        let header = v2(command, family, &rest);
        if let Ok(Some((_, length))) = parse(&header) {
            prop_assert_eq!(length, header.len());
        }
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    client.set_nodelay(true).unwrap();
    (client, listener.accept().await.unwrap().0)
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_header_is_taken_off_the_socket_and_what_follows_stays() {
    let addresses = addresses("192.0.2.1:12345", "192.0.2.2:443");
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let (mut client, mut server) = pair().await;
        let header = compose(version, addresses);
        client
            .write_all(&[&header[..], b"hello"].concat())
            .await
            .unwrap();

        let received = receive(&server, PATIENCE).await.unwrap();

        assert_eq!(received, Header::Proxied(addresses));
        let mut rest = [0; 5];
        server.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"hello");
    }
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let addresses = addresses("192.0.2.1:12345", "192.0.2.2:443");
    let (mut client, mut server) = pair().await;
    let sending = async {
        for byte in compose(ProxyVersion::V1, addresses) {
            client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.write_all(b"hello").await.unwrap();
    };
    let (received, ()) = tokio::join!(receive(&server, PATIENCE), sending);

    assert_eq!(received.unwrap(), Header::Proxied(addresses));
    let mut rest = [0; 5];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"hello");
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for() {
    let (mut client, server) = pair().await;
    client.write_all(b"PROXY TCP4 ").await.unwrap();
    let late = receive(&server, Duration::from_millis(100)).await;
    assert!(matches!(late, Err(ReceiveError::TimedOut)));

    let (mut client, server) = pair().await;
    client.write_all(b"PROXY TCP4 ").await.unwrap();
    drop(client);
    let ended = receive(&server, PATIENCE).await;
    assert!(matches!(
        ended,
        Err(ReceiveError::Ended | ReceiveError::Broken(_))
    ));
}
