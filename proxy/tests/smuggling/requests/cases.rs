//! The table: what is sent, by which section it is judged, and what must come of it.

use Expected::{NeverEnds, Refused, Sees, SeesThenRefuses};

/// What must come of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// With this status (0: any 4xx or 5xx); the endpoint sees no whole request.
    Refused(u16),
    /// The endpoint sees these requests and no other, each as `METHOD target body`.
    Sees(Vec<&'static str>),
    SeesThenRefuses(Vec<&'static str>, u16),
    /// It is waited for more until the client leaves; the endpoint sees no whole request.
    NeverEnds,
}

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
    /// It means nothing in another form.
    pub(crate) origin_only: bool,
    /// Field lines, in lower case, that the endpoint sees on its first request.
    pub(crate) has: Vec<&'static str>,
    /// Text, in lower case, that it does not see in its head.
    pub(crate) lacks: Vec<&'static str>,
}

impl Case {
    fn origin_only(mut self) -> Self {
        self.origin_only = true;
        self
    }

    fn has(mut self, line: &'static str) -> Self {
        self.has.push(line);
        self
    }

    fn lacks(mut self, text: &'static str) -> Self {
        self.lacks.push(text);
        self
    }
}

/// A request that must never be taken for one.
macro_rules! hidden {
    () => {
        "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    };
}
const HIDDEN: &str = hidden!();

type Table = Vec<Case>;

pub(crate) fn all() -> Table {
    let mut all = Vec::new();
    all.extend(length_and_coding());
    all.extend(codings());
    all.extend(lengths());
    all.extend(line_ends());
    all.extend(controls());
    all.extend(folds());
    all.extend(names());
    all.extend(hosts());
    all.extend(targets());
    all.extend(first_lines());
    all.extend(sizes());
    all.extend(trailers());
    all.extend(bodies());
    all.extend(pipelines());
    all.extend(connection_options());
    all.extend(origins());
    all.extend(upgrades());
    all.extend(oversize());
    all
}

/// `what`: its name with the section that judges it.
fn case(what: &str, bytes: impl AsRef<[u8]>, expected: Expected) -> Case {
    Case {
        name: format!("{what}: {}", show(bytes.as_ref())),
        bytes: bytes.as_ref().to_vec(),
        expected,
        origin_only: false,
        has: Vec::new(),
        lacks: Vec::new(),
    }
}

fn show(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(160)];
    start.escape_ascii().to_string()
}

/// A POST with these lines (each with its end) and this body.
fn post(lines: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    [
        b"POST /a HTTP/1.1\r\nHost: x\r\n",
        lines.as_ref(),
        b"\r\n",
        body.as_ref(),
    ]
    .concat()
}

fn get(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /a HTTP/1.1\r\nHost: x\r\n", lines.as_ref(), b"\r\n"].concat()
}

/// CL.TE, TE.CL and their kin: both framings in one head (RFC 9112 §6.1, §6.3).
fn length_and_coding() -> Table {
    let what = "length and coding, RFC 9112 §6.3";
    let both = [
        (
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\nG",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "8\r\nSMUGGLED\r\n0\r\n\r\n",
        ),
        (
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 15\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "transfer-encoding: CHUNKED\r\ncONTENT-lENGTH: 5\r\n",
            "0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
            "hello",
        ),
        ("Transfer-Encoding: gzip\r\nContent-Length: 5\r\n", "hello"),
        (
            "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 0\r\n",
            "0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5, 5\r\n",
            "0\r\n\r\n",
        ),
    ];
    let both =
        both.map(|(lines, body)| case(what, post(lines, [body, HIDDEN].concat()), Refused(400)));
    let mut table: Table = both.into();
    table.push(
        case(
            "chunked in HTTP/1.0, RFC 9112 §6.1",
            "POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Refused(400),
        )
        .origin_only(),
    );
    table
}

/// TE.TE: codings that only some recipients would take for `chunked` (RFC 9112 §6.1, §7).
fn codings() -> Table {
    let what = "coding, RFC 9112 §6.1";
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let line = |value: &[u8]| [b"Transfer-Encoding:", value, b"\r\n"].concat();
    let mut table = Vec::new();
    for value in [
        " chunked",
        "chunked",
        "  chunked",
        "\tchunked",
        " chunked ",
        " chunked\t",
        " CHUNKED",
        " cHuNkEd",
        " \t chunked \t ",
    ] {
        let sees = Sees(vec!["POST /a hello"]);
        table.push(
            case(what, post(line(value.as_bytes()), body), sees).has("transfer-encoding: chunked"),
        );
    }
    let unknown: [&[u8]; 19] = [
        b" xchunked",
        b" chunkedx",
        b" identity",
        b" gzip",
        b" gzip, chunked",
        b" identity, chunked",
        b" chunked;q=1",
        b" \"chunked\"",
        b" 'chunked'",
        b" chunke",
        b" chun ked",
        b" chunked\xa0",
        b" \xa0chunked",
        b" ,chunked",
        b" chunked.",
        b" x chunked",
        b" chunked=",
        b" chun\tked",
        b" \xef\xbb\xbfchunked",
    ];
    for value in unknown {
        table.push(case(what, post(line(value), body), Refused(501)));
    }
    let ambiguous: [&[u8]; 13] = [
        b" chunked, identity",
        b" chunked, chunked",
        b" chunked,",
        b" chunked,,",
        b"",
        b" ",
        b" chunked\x0b",
        b" \x0bchunked",
        b" chunked\x0c",
        b" chunked\0",
        b" chunked\x7f",
        b" chunked\r",
        b"\r chunked",
    ];
    for value in ambiguous {
        table.push(case(what, post(line(value), body), Refused(400)));
    }
    let lines: [&[u8]; 15] = [
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: x\r\ntransfer-encoding: chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding: x\r\n\tchunked\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding\t: chunked\r\n",
        b"Content-Length: 5\r\n Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nTransfer_Encoding: chunked\r\n",
        b"Content-Length: 5\r\nTransfer Encoding: chunked\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding\0: chunked\r\n",
        b"Content-Length: 5\r\n\0Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked\r\n",
    ];
    for lines in lines {
        table.push(case(
            "coding in disguise, RFC 9112 §5.1",
            post(lines, body),
            Refused(400),
        ));
    }
    table
}

/// Lengths that are no plain number, or not one (RFC 9110 §8.6).
fn lengths() -> Table {
    let what = "length, RFC 9110 §8.6";
    let mut table = Vec::new();
    for value in [" 5", "5", "  5", "\t5", " 5 ", " 5\t", " 05", " 0000005"] {
        let bytes = post(format!("Content-Length:{value}\r\n"), "hello");
        table.push(case(what, bytes, Sees(vec!["POST /a hello"])));
    }
    let wrong: [&[u8]; 30] = [
        b" +5",
        b" -5",
        b" -0",
        b" 0x5",
        b" 5h",
        b" 5, 5",
        b" 5,5",
        b" 5, 6",
        b" 5,",
        b" ,5",
        b" 5 5",
        b"",
        b" ",
        b" 5.0",
        b" 5;",
        b" 5e0",
        b" 0,5",
        b" \"5\"",
        b" five",
        b" 5\0",
        b" 5\x0b",
        b" \x0c5",
        b" 5\x7f",
        b" 5\xa0",
        b" \xd9\xa5",
        b" 5\r",
        b" 9223372036854775808",
        b" 18446744073709551621",
        b" 99999999999999999999",
        b" 5_0",
    ];
    for value in wrong {
        let line = [b"Content-Length:", value, b"\r\n"].concat();
        table.push(case(what, post(line, "hello"), Refused(400)));
    }
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "content-length: 5\r\nX: y\r\nCONTENT-LENGTH: 0\r\n",
        "Content-Length: 5\r\nContent-Length:\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        " Content-Length: 5\r\n",
        "Content-Length: 5\r\n 6\r\n",
        "Content-Length:\r\n 5\r\n",
        "Content_Length: 5\r\n",
        "content_length: 5\r\nContent-Length: 0\r\n",
        "Content-Length: 5\r\nCONTENT_LENGTH: 0\r\n",
        "Content Length: 5\r\n",
        "X: y\nContent-Length: 5\r\n",
        "X: y\rContent-Length: 5\r\n",
    ] {
        table.push(case(what, post(lines, "hello"), Refused(400)));
    }
    // 5 in 32 and in 16 bits.
    for value in ["4294967301", "65541", "9223372036854775807"] {
        let bytes = post(
            format!("Content-Length: {value}\r\n"),
            ["hello", HIDDEN].concat(),
        );
        table.push(case(what, bytes, NeverEnds));
    }
    table
}

/// Lines that end in something else than CRLF (RFC 9112 §2.2).
fn line_ends() -> Table {
    let what = "line end, RFC 9112 §2.2";
    let wrong: [&[u8]; 23] = [
        b"GET /a HTTP/1.1\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\n",
        b"GET /a HTTP/1.1\nHost: x\n\n",
        b"GET /a HTTP/1.1\r\nHost: x\n\n",
        b"GET /a HTTP/1.1\rHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: \ry\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX\r: y\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\rX: y\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\r\n\r\n",
        b"GET /a\r HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET\r/a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\rGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\r\n\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\x0bHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\x85Host: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: y\n Z: z\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: y\r\n\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\n\rHost: x\n\r\n\r",
    ];
    let mut table: Table = wrong.map(|bytes| case(what, bytes, Refused(400))).into();
    for end in ["\r\r\n", "\t\r\n", "\x0b\r\n"] {
        let bytes = format!("GET /a HTTP/1.1{end}Host: x\r\n\r\n");
        table.push(case(what, bytes, Refused(505)));
    }
    for start in ["\r\n", "\r\n\r\n"] {
        let bytes = [start.as_bytes(), &get("")].concat();
        table.push(case(what, bytes, Sees(vec!["GET /a"])));
    }
    table
}

/// NUL and other controls (RFC 9110 §5.5, RFC 9112 §3).
fn controls() -> Table {
    let what = "control, RFC 9110 §5.5";
    let wrong: [&[u8]; 17] = [
        b"GET /a\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G\0ET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\0\r\nHost: x\r\n\r\n",
        b"GET /a\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a\x0b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX\0: y\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\x01b\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\x0bb\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\x0cb\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\x1bb\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\x7fb\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\0\n\r\n",
    ];
    let mut table: Table = wrong.map(|bytes| case(what, bytes, Refused(400))).into();
    let lawful = get("X: a\tb\r\n");
    table.push(case(what, lawful, Sees(vec!["GET /a"])).has("x: a\tb"));
    let lawful = get(b"X: \xc3\xa4\xff\r\nY: z\r\n");
    table.push(case(what, lawful, Sees(vec!["GET /a"])).has("y: z"));
    table
}

/// Folded lines (RFC 9112 §5.2).
fn folds() -> Table {
    let what = "fold, RFC 9112 §5.2";
    let lines = [
        " X: y\r\n",
        "\tX: y\r\n",
        "X: y\r\n z\r\n",
        "X: y\r\n\tz\r\n",
        "X:\r\n y\r\n",
        "X: y\r\n \r\n",
        "X: y\r\n\t\r\n",
        "X: y\r\n Content-Length: 33\r\n",
        " \r\nX: y\r\n",
        "X: y\r\n : z\r\n",
    ];
    let mut table: Table = lines
        .map(|lines| case(what, get(lines), Refused(400)))
        .into();
    for bytes in [
        "GET /a HTTP/1.1\r\n Host: x\r\n\r\n",
        "GET /a HTTP/1.1\r\n \r\nHost: x\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost:\r\n x\r\n\r\n",
        "GET /a\r\n HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        table.push(case(what, bytes, Refused(400)));
    }
    table
}

/// Names that are no tokens (RFC 9110 §5.1, RFC 9112 §5.1).
fn names() -> Table {
    let what = "name, RFC 9112 §5.1";
    let wrong: [&[u8]; 25] = [
        b"X : y\r\n",
        b"X\t: y\r\n",
        b"X  : y\r\n",
        b": y\r\n",
        b" : y\r\n",
        b"X y: z\r\n",
        b"X(a): y\r\n",
        b"X\x80: y\r\n",
        b"X\xff: y\r\n",
        b"garbage\r\n",
        b"X@: y\r\n",
        b"[X]: y\r\n",
        b"{X}: y\r\n",
        b"X/y: z\r\n",
        b"X,y: z\r\n",
        b"X;: z\r\n",
        b"X=y: z\r\n",
        b"X?: y\r\n",
        b"X\\: y\r\n",
        b"\"X\": y\r\n",
        b"<X>: y\r\n",
        b"\xef\xbb\xbfX: y\r\n",
        b"X\x01: y\r\n",
        b"=\r\n",
        b"GET /hidden HTTP/1.1\r\n",
    ];
    let mut table: Table = wrong
        .map(|lines| case(what, get(lines), Refused(400)))
        .into();
    for lines in [
        "X:\r\n",
        "X:y\r\n",
        "X: \t y \t \r\n",
        "!#$%&'*+-.^_`|~1aZ: y\r\n",
        "X: a:b:c\r\n",
    ] {
        table.push(case(what, get(lines), Sees(vec!["GET /a"])));
    }
    table
}

/// Exactly one lawful `Host` that the target does not contradict (RFC 9112 §3.2).
fn hosts() -> Table {
    let what = "host, RFC 9112 §3.2";
    let mut table = Vec::new();
    let with = |lines: &[u8]| [b"GET /a HTTP/1.1\r\n", lines, b"\r\n"].concat();
    let wrong: [&[u8]; 25] = [
        b"",
        b"X: y\r\n",
        b"Host: x\r\nHost: x\r\n",
        b"Host: x\r\nHost: y\r\n",
        b"Host: x\r\nhOST: x\r\n",
        b"Host:\r\n",
        b"Host: \r\n",
        b"Host: u@x\r\n",
        b"Host: u:p@x\r\n",
        b"Host: x y\r\n",
        b"Host: x\ty\r\n",
        b"Host: x/y\r\n",
        b"Host: x?y\r\n",
        b"Host: x#y\r\n",
        b"Host: x:99999\r\n",
        b"Host: x:abc\r\n",
        b"Host: x:-1\r\n",
        b"Host: x:80:80\r\n",
        b"Host: x, y\r\n",
        b"Host: :80\r\n",
        b"Host: x\xff\r\n",
        b"Host: [::1\r\n",
        b"Host: x\\y\r\n",
        b"Host : x\r\n",
        b"Host: http://x\r\n",
    ];
    for lines in wrong {
        table.push(case(what, with(lines), Refused(400)).origin_only());
    }
    for (lines, line) in [
        ("Host: x\r\n", "host: x"),
        ("Host:x:80\r\n", "host: x:80"),
        ("hOsT: [::1]:80\r\n", "host: [::1]:80"),
        ("Host: a-b.c_d.e\r\n", "host: a-b.c_d.e"),
    ] {
        let passes = case(what, with(lines.as_bytes()), Sees(vec!["GET /a"]));
        table.push(passes.has(line).origin_only());
    }
    for (target, host) in [
        ("http://y/a", "x"),
        ("http://x:81/a", "x:80"),
        ("http://x@y/a", "x"),
        ("http://x@y/a", "y"),
        ("http:///a", "x"),
        ("http://x,y/a", "x"),
        ("http://x y/a", "x"),
        ("http://x/a", ""),
        ("http://x\\@y/a", "x"),
        ("http://x#@y/a", "x"),
        ("http://[::1/a", "x"),
        ("http://x:99999/a", "x:99999"),
        ("ftp://x/a", "x"),
        ("http:/x/a", "x"),
        ("http:x/a", "x"),
        ("x/a", "x"),
        ("//", "u@x"),
        ("javascript://x/a", "x"),
        ("httpx://x/a", "x"),
        ("http://", "x"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        table.push(case(what, bytes, Refused(400)).origin_only());
    }
    let bytes = "GET http://x/a HTTP/1.1\r\nX: y\r\n\r\n";
    table.push(
        case(
            "no host beside a full target, RFC 9112 §3.2",
            bytes,
            Refused(400),
        )
        .origin_only(),
    );
    for target in ["http://x/a", "HTTP://x/a", "https://x/a", "hTTp://x/a"] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        table.push(
            case(what, bytes, Sees(vec!["GET /a"]))
                .has("host: x")
                .origin_only(),
        );
    }
    let bytes = "GET /a HTTP/1.0\r\n\r\n";
    table.push(
        case(
            "HTTP/1.0 needs no host, RFC 9112 §3.2",
            bytes,
            Sees(vec!["GET /a"]),
        )
        .origin_only(),
    );
    table
}

/// Targets (RFC 9112 §3.2, RFC 3986 §2).
fn targets() -> Table {
    let what = "target, RFC 9112 §3.2";
    let mut table = Vec::new();
    let wrong: [&[u8]; 19] = [
        b"",
        b" /a",
        b"a",
        b"?a",
        b"*",
        b"/a b",
        b"/a#b",
        b"/a\"b",
        b"/<a>",
        b"/\xc3\xa4",
        b"/\xff",
        b"/\x80",
        b"/a\tb",
        b"\\a",
        b"/a HTTP/1.1",
        b"@x",
        b"/a\x1f",
        b"../a",
        b"**",
    ];
    for target in wrong {
        let bytes = [b"GET ", target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        table.push(case(what, bytes, Refused(400)).origin_only());
    }
    for (target, sees) in [
        ("/a%00b", "GET /a%00b"),
        ("/a%0d%0ab", "GET /a%0d%0ab"),
        ("//x/a", "GET //x/a"),
        ("/../a", "GET /../a"),
        ("/%2e%2e/a", "GET /%2e%2e/a"),
        ("/a?b=c&d=/?", "GET /a?b=c&d=/?"),
        ("/a\\b", "GET /a\\b"),
        ("/a%", "GET /a%"),
        ("/a|b^c`{}", "GET /a|b^c`{}"),
        ("/;a=b,c", "GET /;a=b,c"),
        ("/http://y/", "GET /http://y/"),
        ("/a%23b", "GET /a%23b"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        table.push(case(what, bytes, Sees(vec![sees])).origin_only());
    }
    let bytes = "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n";
    table.push(case(what, bytes, Sees(vec!["OPTIONS *"])).origin_only());
    for target in ["x:80", "/a", "http://x/"] {
        let bytes = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        table.push(case("CONNECT, RFC 9110 §9.3.6", bytes, Refused(405)).origin_only());
    }
    table
}

/// Methods, versions and the spaces between them (RFC 9112 §3).
fn first_lines() -> Table {
    let what = "request line, RFC 9112 §3";
    let mut table = Vec::new();
    for version in [
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/0.9",
        "HTTP/1.10",
        "HTTP/11",
        "HTTP/1,1",
        "HTTP/3",
        "HTTP/9.9",
        "HTTP/01.1",
    ] {
        let bytes = format!("GET /a {version}\r\nHost: x\r\n\r\n");
        table.push(case("version, RFC 9110 §2.5", bytes, Refused(505)).origin_only());
    }
    for line in [
        "GET /a http/1.1",
        "GET /a HTTPS/1.1",
        "GET /a HTTP/",
        "GET /a HTTP",
        "GET /a HTTP /1.1",
        "GET /a HTTP/x.1",
        "GET /a HTTP/1.1 ",
        "GET /a  HTTP/1.1",
        "GET  /a HTTP/1.1",
        " GET /a HTTP/1.1",
        "GET\t/a\tHTTP/1.1",
        "GET /a",
        "GET",
        "",
        "GET /a HTTP/1.1 HTTP/1.1",
        "G@T /a HTTP/1.1",
        "GE:T /a HTTP/1.1",
        " /a HTTP/1.1",
        "/a HTTP/1.1",
        "GET/a HTTP/1.1",
        "\u{e4} /a HTTP/1.1",
        "\"GET\" /a HTTP/1.1",
        "PRI * HTTP/1.1",
        "Host: x",
    ] {
        let bytes = format!("X{}\r\nHost: x\r\n\r\n", line);
        let bytes = bytes.strip_prefix('X').unwrap_or_default();
        table.push(case(what, bytes, Refused(400)).origin_only());
    }
    for (bytes, status) in [
        ("PRI * HTTP/2.0\r\nHost: x\r\n\r\nSM\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\n\n", 505),
        ("PRI * HTTP/2.0\r\n\n\nSM\r\n\r\n", 400),
        ("PRI  * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        ("\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ] {
        table.push(case("preface, RFC 9113 §3.4", bytes, Refused(status)).origin_only());
    }
    let preface = [&get("")[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat();
    let passes = SeesThenRefuses(vec!["GET /a"], 505);
    table.push(case("late preface, RFC 9113 §3.4", preface, passes).origin_only());
    for (method, sees) in [
        ("get", "get /a"),
        ("G!T", "G!T /a"),
        ("SEARCH", "SEARCH /a"),
        ("TRACE", "TRACE /a"),
    ] {
        let bytes = format!("{method} /a HTTP/1.1\r\nHost: x\r\n\r\n");
        table.push(case("method, RFC 9110 §9.1", bytes, Sees(vec![sees])));
    }
    table
}

fn chunked(body: impl AsRef<[u8]>) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// Sizes, extensions and the ends of chunks (RFC 9112 §7.1).
fn sizes() -> Table {
    let what = "chunk, RFC 9112 §7.1";
    let mut table = Vec::new();
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "005\r\nhello\r\n000\r\n\r\n",
        "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
        "5;a\r\nhello\r\n0;b\r\n\r\n",
        "5;a=b;c=\"d e\"\r\nhello\r\n0\r\n\r\n",
        "5 ;a=b\r\nhello\r\n0\r\n\r\n",
        "5\t;a\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "0000000000000005\r\nhello\r\n0\r\n\r\n",
    ] {
        table.push(case(what, chunked(body), Sees(vec!["POST /a hello"])));
    }
    let body = "A\r\nhellohello\r\n0\r\n\r\n";
    table.push(case(what, chunked(body), Sees(vec!["POST /a hellohello"])));
    let body = "a\r\nhellohello\r\n0\r\n\r\n";
    table.push(case(what, chunked(body), Sees(vec!["POST /a hellohello"])));
    let wrong: [&[u8]; 38] = [
        b"\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello\n\r0\r\n\r\n",
        b"5\r\nhello\r\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"\t5\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5h\r\nhello\r\n0\r\n\r\n",
        b"5,\r\nhello\r\n0\r\n\r\n",
        b";a\r\nhello\r\n0\r\n\r\n",
        b"G\r\nhello\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5;\n\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5\0\r\nhello\r\n0\r\n\r\n",
        b"5=a\r\nhello\r\n0\r\n\r\n",
        b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"8000000000000000\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\r\nhello\r\n0\n\n",
        b"0\r\nX\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
        b"5\xa0\r\nhello\r\n0\r\n\r\n",
    ];
    for body in wrong {
        table.push(case(
            what,
            chunked([body, HIDDEN.as_bytes()].concat()),
            Refused(400),
        ));
    }
    for body in [
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n0\r\n\r\n",
    ] {
        table.push(case(what, chunked(body), Refused(400)));
    }
    for body in [
        "100000005\r\nhello\r\n0\r\n\r\n",
        "10005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0\r\n",
        "0\r\nX: y\r\n",
    ] {
        table.push(case(what, chunked(body), NeverEnds));
    }
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000));
    table.push(case(
        "chunk extension, RFC 9112 §7.1.1",
        chunked(long),
        Refused(400),
    ));
    let body = ["21\r\n", HIDDEN, "\r\n0\r\n\r\n"].concat();
    table.push(case(
        "request in a chunk, RFC 9112 §7.1",
        chunked(body),
        Sees(vec![concat!("POST /a ", hidden!())]),
    ));
    table
}

/// Trailers (RFC 9110 §6.5.1, RFC 9112 §7.1.2).
fn trailers() -> Table {
    let what = "trailers, RFC 9110 §6.5.1";
    let with = |lines: &[u8]| chunked([b"5\r\nhello\r\n0\r\n", lines, b"\r\n"].concat());
    let mut table = Vec::new();
    let plain = || Sees(vec!["POST /a hello"]);
    table.push(case(
        what,
        with(b"X-Sum: 1\r\n"),
        Sees(vec!["POST /a hello<X-Sum: 1>"]),
    ));
    for line in [
        "Content-Length: 33\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: y\r\n",
        "X-Forwarded-For: 1.2.3.4\r\n",
        "X_Forwarded_For: 1.2.3.4\r\n",
        "Connection: close\r\n",
        "Authorization: x\r\n",
        "Cookie: a=b\r\n",
        "content_length: 5\r\n",
        "Trailer: x\r\n",
        "Upgrade: h2c\r\n",
        "TE: gzip\r\n",
        "Forwarded: for=1.2.3.4\r\n",
        "X-Request-Id: forged\r\n",
        "Via: 1.1 x\r\n",
        "Content-Type: a/b\r\n",
    ] {
        table.push(case(
            "forbidden trailer, RFC 9110 §6.5.1",
            with(line.as_bytes()),
            plain(),
        ));
    }
    let wrong: [&[u8]; 9] = [
        b" X: y\r\n",
        b"X : y\r\n",
        b"X: \0\r\n",
        b": y\r\n",
        b"X: a\rb\r\n",
        b"X y: z\r\n",
        b"X: y\r\n z\r\n",
        b"garbage\r\n",
        b"GET /hidden HTTP/1.1\r\n",
    ];
    for lines in wrong {
        table.push(case(what, with(lines), Refused(400)));
    }
    table.push(case(what, with(b"X: y\n"), Refused(400)));
    table
}

/// Requests that stand in bodies (RFC 9112 §6.3): whatever the method is, the framing decides.
fn bodies() -> Table {
    let what = "request in a body, RFC 9112 §6.3";
    let mut table = Vec::new();
    for (method, sees) in [
        ("POST", concat!("POST /a ", hidden!())),
        ("GET", concat!("GET /a ", hidden!())),
        ("HEAD", concat!("HEAD /a ", hidden!())),
        ("DELETE", concat!("DELETE /a ", hidden!())),
        ("OPTIONS", concat!("OPTIONS /a ", hidden!())),
        ("TRACE", concat!("TRACE /a ", hidden!())),
        ("FOO", concat!("FOO /a ", hidden!())),
        ("PATCH", concat!("PATCH /a ", hidden!())),
    ] {
        let start = format!("{method} /a HTTP/1.1\r\nHost: x\r\n");
        let bytes = format!("{start}Content-Length: 33\r\n\r\n{HIDDEN}");
        table.push(case(what, bytes, Sees(vec![sees])));
        let bytes = format!("{start}Transfer-Encoding: chunked\r\n\r\n21\r\n{HIDDEN}\r\n0\r\n\r\n");
        table.push(case(what, bytes, Sees(vec![sees])));
    }
    for expect in ["100-continue", "100-Continue", "x=y", ""] {
        let bytes = post(
            format!("Expect: {expect}\r\nContent-Length: 33\r\n"),
            HIDDEN,
        );
        table.push(case(
            "Expect, RFC 9110 §10.1.1",
            bytes,
            Sees(vec![concat!("POST /a ", hidden!())]),
        ));
    }
    let bytes = post(
        "Content-Type: multipart/form-data; boundary=0\r\nContent-Length: 5\r\n",
        "0\r\n\r\n",
    );
    table.push(case(what, bytes, Sees(vec!["POST /a 0\r\n\r\n"])));
    table.push(case(what, get("Content-Length: 40\r\n"), NeverEnds));
    table.push(case(what, get("Transfer-Encoding: chunked\r\n"), NeverEnds));
    table
}

/// CL.0, 0.CL: where one request ends and the next begins (RFC 9112 §9.3).
fn pipelines() -> Table {
    let what = "pipeline, RFC 9112 §9.3";
    let second = "GET /b HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut table = Vec::new();
    let mut push = |first: Vec<u8>, sees: Vec<&'static str>| {
        let bytes = [&first, second.as_bytes()].concat();
        table.push(case(what, bytes, Sees(sees)));
    };
    push(get(""), vec!["GET /a", "GET /b"]);
    push(get("Content-Length: 0\r\n"), vec!["GET /a", "GET /b"]);
    push(post("Content-Length: 0\r\n", ""), vec!["POST /a", "GET /b"]);
    push(post("", ""), vec!["POST /a", "GET /b"]);
    push(
        post("Content-Length: 5\r\n", "hello"),
        vec!["POST /a hello", "GET /b"],
    );
    push(
        post("Content-Length: 5\r\n", "hello\r\n"),
        vec!["POST /a hello", "GET /b"],
    );
    push(
        chunked("5\r\nhello\r\n0\r\n\r\n"),
        vec!["POST /a hello", "GET /b"],
    );
    push(chunked("0\r\n\r\n"), vec!["POST /a", "GET /b"]);
    push(chunked("0\r\n\r\n\r\n"), vec!["POST /a", "GET /b"]);
    push(
        b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec!["HEAD /a", "GET /b"],
    );
    push(get("Connection: close\r\n"), vec!["GET /a"]);
    push(
        post("Connection: close\r\nContent-Length: 5\r\n", "hello"),
        vec!["POST /a hello"],
    );
    push(get("Connection: x, Close\r\n"), vec!["GET /a"]);
    for (second, status) in [
        ("X\r\n\r\n", 400),
        ("0\r\n\r\n", 400),
        ("GET /b HTTP/1.1\r\n\r\n", 400),
        ("GET /b HTTP/1.1\nHost: x\n\n", 400),
        ("GET /b HTTP/2.0\r\n\r\n", 505),
    ] {
        let bytes = [&post("Content-Length: 5\r\n", "hello"), second.as_bytes()].concat();
        let then = SeesThenRefuses(vec!["POST /a hello"], status);
        table.push(case(what, bytes, then).no_http_1_0());
    }
    table
}

impl Case {
    /// HTTP/1.0 ends the connection behind the first request; absolute form changes nothing.
    fn no_http_1_0(self) -> Self {
        self.origin_only()
    }
}

/// What `Connection` cannot talk us out of (RFC 9110 §7.6.1).
fn connection_options() -> Table {
    let what = "Connection, RFC 9110 §7.6.1";
    let sees = || Sees(vec![concat!("POST /a ", hidden!())]);
    let mut table = Vec::new();
    for option in [
        "content-length",
        "Content-Length",
        "close, content-length",
        "x, content-length",
        "host",
        "HOST",
        "host, content-length",
    ] {
        let bytes = post(
            format!("Connection: {option}\r\nContent-Length: 33\r\n"),
            HIDDEN,
        );
        table.push(
            case(what, bytes, sees())
                .has("content-length: 33")
                .has("host: x"),
        );
    }
    for option in [
        "transfer-encoding",
        "Transfer-Encoding, te",
        "trailer, transfer-encoding",
    ] {
        let lines = format!("Connection: {option}\r\nTransfer-Encoding: chunked\r\n");
        let bytes = post(lines, ["21\r\n", HIDDEN, "\r\n0\r\n\r\n"].concat());
        table.push(case(what, bytes, sees()).has("transfer-encoding: chunked"));
    }
    for option in [
        "x-forwarded-for",
        "X-Forwarded-For, x-forwarded-proto",
        "forwarded",
        "via",
        "x-request-id",
        "x-forwarded-host",
    ] {
        let one = case(
            what,
            get(format!("Connection: {option}\r\n")),
            Sees(vec!["GET /a"]),
        );
        let one = one
            .has("x-forwarded-for: 127.0.0.1")
            .has("x-forwarded-proto: http")
            .has("x-forwarded-host: x");
        table.push(one.lacks("connection:"));
    }
    let one = get("Connection: X-Secret, y\r\nX-Secret: 1\r\nY: 2\r\nZ: 3\r\n");
    table.push(
        case(what, one, Sees(vec!["GET /a"]))
            .has("z: 3")
            .lacks("x-secret")
            .lacks("\r\ny:"),
    );
    let one = get("Connection: X-Secret\r\nConnection: y\r\nX-Secret: 1\r\nY: 2\r\n");
    table.push(
        case(what, one, Sees(vec!["GET /a"]))
            .lacks("x-secret")
            .lacks("\r\ny:"),
    );
    let one = get(
        "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip, trailers\r\nProxy-Authorization: x\r\n",
    );
    let one = case(what, one, Sees(vec!["GET /a"])).has("te: trailers");
    table.push(
        one.lacks("keep-alive")
            .lacks("proxy-connection")
            .lacks("gzip")
            .lacks("proxy-authorization"),
    );
    table
}

/// A client's word about where it comes from (RFC 7239 §8).
fn origins() -> Table {
    let mut table = Vec::new();
    for name in [
        "X-Forwarded-For",
        "X_Forwarded_For",
        "x-forwarded_for",
        "X-Real-IP",
        "X_Real_IP",
        "Forwarded",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X_Forwarded_Proto",
        "X-Forwarded-Port",
        "X-Sealane-Client-Identity",
        "X_Sealane_Client_Identity",
    ] {
        let bytes = get(format!("{name}: forged\r\n{name}: forged\r\n"));
        table.push(case("origin, RFC 7239 §8", bytes, Sees(vec!["GET /a"])).lacks("forged"));
    }
    table
}

/// Requests could hide behind a change of protocol (RFC 9110 §7.8).
fn upgrades() -> Table {
    let what = "upgrade, RFC 9110 §7.8";
    let mut table = Vec::new();
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: H2C\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: h2\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: Upgrade\r\nUpgrade: http/1.1\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.3\r\n",
        "Connection: keep-alive\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade:\r\n",
        "Connection: upgrade\r\n",
    ] {
        let one = case(what, get(lines), Sees(vec!["GET /a"]));
        table.push(one.lacks("upgrade").lacks("http2-settings"));
    }
    let lines = "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 33\r\n";
    let one = case(
        what,
        post(lines, HIDDEN),
        Sees(vec![concat!("POST /a ", hidden!())]),
    );
    table.push(one.lacks("upgrade"));
    let one = case(
        what,
        get("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        Sees(vec!["GET /a"]),
    );
    table.push(
        one.has("upgrade: websocket")
            .has("connection: upgrade")
            .origin_only(),
    );
    table
}

/// Heads beyond their bounds (RFC 9110 §5.4, RFC 6585 §5).
fn oversize() -> Table {
    let what = "size, RFC 6585 §5";
    let fields = |count: usize| "X: y\r\n".repeat(count);
    let long = "x".repeat(70 * 1024);
    vec![
        case(what, get(fields(101)), Refused(431)),
        case(what, get(format!("X: {long}\r\n")), Refused(431)),
        case(what, get(format!("X{long}: y\r\n")), Refused(431)),
        case(
            what,
            format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            Refused(431),
        )
        .origin_only(),
        case(
            what,
            format!("{long} /a HTTP/1.1\r\nHost: x\r\n\r\n"),
            Refused(431),
        )
        .origin_only(),
        case(what, &long, Refused(431)).origin_only(),
        case(what, get(fields(10_000)), Refused(431)),
        case(what, get(fields(99)), Sees(vec!["GET /a"])).has("x: y"),
    ]
}
