//! LOC records (RFC 1876): a place, read from text into wire form. Called by [`crate::record`].

/// `52 31 12.5 N 13 24 36 E 34m [1m [10000m [10m]]]`, word by word.
pub(crate) fn wire(words: &[&str]) -> Option<Vec<u8>> {
    let mut rest = words;
    let latitude = angle(&mut rest, 90, ["N", "S"])?;
    let longitude = angle(&mut rest, 180, ["E", "W"])?;
    let mut metres = rest.iter().map(|word| centimetres(word));
    let altitude = metres.next()??;
    // Altitudes count from 100 km below the ellipsoid (§2).
    let altitude = u32::try_from(altitude + 10_000_000).ok()?;
    let mut sizes = [100, 1_000_000, 1_000];
    for size in &mut sizes {
        if let Some(said) = metres.next() {
            *size = said?;
        }
    }
    if metres.next().is_some() {
        return None;
    }
    let mut wire = vec![0];
    for size in sizes {
        wire.push(precision(size)?);
    }
    for part in [latitude, longitude, altitude] {
        wire.extend_from_slice(&part.to_be_bytes());
    }
    Some(wire)
}

/// Degrees, perhaps minutes, perhaps seconds, and a direction: in thousandths of a second from 2^31.
fn angle(rest: &mut &[&str], most: u32, directions: [&str; 2]) -> Option<u32> {
    let end = rest
        .iter()
        .position(|word| directions.iter().any(|d| d.eq_ignore_ascii_case(word)))?;
    let (numbers, [direction, after @ ..]) = rest.split_at_checked(end)? else {
        return None;
    };
    let [degrees, smaller @ ..] = numbers else {
        return None;
    };
    let degrees: u32 = degrees.parse().ok().filter(|degrees| *degrees <= most)?;
    let (minutes, seconds) = match smaller {
        [] => (0, 0),
        [minutes] => (minutes.parse().ok()?, 0),
        [minutes, seconds] => (minutes.parse().ok()?, thousandths(seconds)?),
        _ => return None,
    };
    if minutes > 59 || seconds > 59_999 {
        return None;
    }
    let whole = degrees * 3_600_000 + minutes * 60_000 + seconds;
    if whole > most * 3_600_000 {
        return None;
    }
    *rest = after;
    let is_positive = direction.eq_ignore_ascii_case(directions[0]);
    let middle = 1_u32 << 31;
    Some(if is_positive {
        middle + whole
    } else {
        middle - whole
    })
}

fn thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let whole: u32 = whole.parse().ok()?;
    let part = decimals(part, 3)?;
    whole.checked_mul(1_000)?.checked_add(part)
}

/// `-24.30m`, the unit left out at will.
fn centimetres(text: &str) -> Option<i64> {
    let text = text.strip_suffix(['m', 'M']).unwrap_or(text);
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text),
    };
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let whole: u32 = whole.parse().ok()?;
    let part = decimals(part, 2)?;
    Some(sign * (i64::from(whole) * 100 + i64::from(part)))
}

fn decimals(text: &str, most: usize) -> Option<u32> {
    if text.len() > most || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    format!("{text:0<most$}").parse().ok()
}

/// A digit and a power of ten, in centimetres (§2).
fn precision(centimetres: i64) -> Option<u8> {
    let mut mantissa = u64::try_from(centimetres).ok()?;
    let mut exponent = 0_u8;
    while mantissa > 9 {
        mantissa /= 10;
        exponent += 1;
    }
    let mantissa = u8::try_from(mantissa).ok()?;
    (exponent <= 9).then_some(mantissa << 4 | exponent)
}
