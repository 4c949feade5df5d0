//! Files that outlive the process: copies of other servers' zones, and the serials that zones had.
//!
//! A zone is kept as the messages of a transfer and read like one: what somebody writes into such a file is
//! judged like what a primary sends. Every file is replaced whole.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use crate::config::{Config, Zone};
use crate::dnssec::timing::Moment;
use crate::name::Name;
use crate::serve::clock;
use crate::transfer::book::{Book, Held, Issued};
use crate::transfer::incoming::{Bounds, Given, Incoming, Progress};
use crate::transfer::judge::judge;
use crate::transfer::sending::Sending;
use crate::transfer::version::Version;

/// The first line of a kept zone; after it, in octets: when it was heard of (8), from which address (a line),
/// and the messages, each with its length before it (2).
const ZONE_HEAD: &[u8] = b"sealane zone 1\n";
/// Longer names of zones are told by their hash.
const FILE_NAME_MAX: usize = 100;

/// Reads what is kept of the zones of these rules and not known yet.
pub(crate) fn load(config: &Config, book: &Book) {
    let Some(dir) = config.transfer_dir.as_deref() else {
        return;
    };
    for zone in &config.zones {
        let apex = &zone.apex;
        if zone.transfers.secondary.is_some() && book.held(apex).is_none() {
            match read_zone(dir, zone) {
                Ok(mut held) => {
                    held.is_expired = is_expired(&held);
                    info!(zone = %apex, serial = held.soa.serial, "a copy of this zone was kept");
                    book.hold(apex, held);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => warn!(zone = %apex, %error, "the kept copy of this zone is not used"),
            }
        }
        if zone.transfers.outgoing.is_some() {
            match read_serial(dir, apex) {
                Ok(issued) => book.remember(apex, issued),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    warn!(zone = %apex, %error, "the kept serial of this zone is not used")
                }
            }
        }
    }
}

fn is_expired(held: &Held) -> bool {
    let age = clock::now().0.saturating_sub(held.heard_at().0);
    age >= held.soa.expire.as_secs().into()
}

fn file(dir: &Path, apex: &Name, extension: &str) -> PathBuf {
    let text = apex.to_string();
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    let stem = if text.len() <= FILE_NAME_MAX && text.bytes().all(plain) && text != "." {
        text
    } else {
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(apex.wire()))
    };
    dir.join(format!("{stem}.{extension}"))
}

fn wrong(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

fn read_zone(dir: &Path, zone: &Zone) -> io::Result<Held> {
    let path = file(dir, &zone.apex, "zone");
    let opened = fs::File::open(&path)?;
    let most = Bounds::default().octets as u64 * 2;
    if opened.metadata()?.len() > most {
        return Err(wrong("the file is too large"));
    }
    let mut octets = Vec::new();
    opened.take(most).read_to_end(&mut octets)?;
    let rest = octets
        .strip_prefix(ZONE_HEAD)
        .ok_or_else(|| wrong("no kept zone"))?;
    let (heard_at, rest) = rest
        .split_first_chunk::<8>()
        .ok_or_else(|| wrong("cut short"))?;
    let line = rest.iter().position(|octet| *octet == b'\n');
    let (from, rest) = rest.split_at(line.ok_or_else(|| wrong("cut short"))?);
    let from = std::str::from_utf8(from).map_err(wrong)?;
    let from: SocketAddr = from.parse().map_err(wrong)?;
    let bounds = Bounds {
        octets: usize::MAX,
        ..Bounds::default()
    };
    let mut incoming = Incoming::unsigned(&zone.apex, 0, None, bounds);
    let mut rest = rest.get(1..).unwrap_or_default();
    loop {
        let (length, after) = rest
            .split_first_chunk::<2>()
            .ok_or_else(|| wrong("cut short"))?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (message, after) = after
            .split_at_checked(length)
            .ok_or_else(|| wrong("cut short"))?;
        rest = after;
        if incoming.take(message.to_vec(), Moment(0)).map_err(wrong)? == Progress::Done {
            break;
        }
    }
    match incoming.finish().map_err(wrong)? {
        Given::Zone(given) => {
            let held = Held::new(given, from, u64::from_be_bytes(*heard_at));
            judge(zone, &held, None).map_err(wrong)?;
            Ok(held)
        }
        Given::Nothing => Err(wrong("no zone in it")),
    }
}

/// Keeps a copy of a zone.
///
/// # Errors
/// The directory cannot be written, or has no room.
pub(crate) fn keep_zone(dir: &Path, apex: &Name, held: &Held) -> io::Result<()> {
    let version = Arc::new(Version::of_held(held));
    let mut sending = Sending::to_disk(apex, version).ok_or_else(|| wrong("no such name"))?;
    replace(&file(dir, apex, "zone"), |out| {
        out.write_all(ZONE_HEAD)?;
        out.write_all(&held.heard_at().0.to_be_bytes())?;
        out.write_all(format!("{}\n", held.from).as_bytes())?;
        while let Some(message) = sending.next(Moment(0)) {
            let message = message.map_err(wrong)?;
            let length = u16::try_from(message.len()).map_err(wrong)?;
            out.write_all(&length.to_be_bytes())?;
            out.write_all(&message)?;
        }
        Ok(())
    })
}

/// Notes in a kept copy that it is still what the primary has.
///
/// # Errors
/// The file is gone, or cannot be written.
pub(crate) fn touch_zone(dir: &Path, apex: &Name, heard_at: Moment) -> io::Result<()> {
    let path = file(dir, apex, "zone");
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(ZONE_HEAD.len() as u64))?;
    file.write_all(&heard_at.0.to_be_bytes())
}

fn read_serial(dir: &Path, apex: &Name) -> io::Result<Issued> {
    let text = fs::read_to_string(file(dir, apex, "serial"))?;
    let mut words = text.split_ascii_whitespace();
    let mut word = || words.next().ok_or_else(|| wrong("cut short"));
    Ok(Issued {
        serial: word()?.parse().map_err(wrong)?,
        digest: u128::from_str_radix(word()?, 16).map_err(wrong)?,
    })
}

/// Keeps the serial that a zone has, and what tells whether it is still the same zone.
///
/// # Errors
/// As [`keep_zone`].
pub(crate) fn keep_serial(dir: &Path, apex: &Name, issued: Issued) -> io::Result<()> {
    let Issued { serial, digest } = issued;
    replace(&file(dir, apex, "serial"), |out| {
        writeln!(out, "{serial} {digest:032x}")
    })
}

/// Writes a file beside the old one, then puts it in its place.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o640);
    let mut out = io::BufWriter::new(file.open(&new)?);
    write(&mut out)?;
    out.flush()?;
    out.get_ref().sync_all()?;
    fs::rename(new, path)
}
