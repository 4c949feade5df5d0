//! Compresses an answer's body piece by piece, in bounded memory. Decides nothing about when: see
//! [`super::encoding`] for whether, and `http::relay` for when what is held back is let go.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::rc::Rc;

use bytes::Bytes;
use flate2::write::GzEncoder;
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::config::Encoding;

/// Bytes that the compressors of one worker may hold in all, by [`cost`]. An answer beyond it
/// passes uncompressed.
pub(crate) const HELD_BY_ALL_MAX: usize = 64 * 1024 * 1024;

/// Windows, as powers of two: a larger one finds more to leave out, and holds more for each answer.
const BROTLI_WINDOW: u32 = 17;
const ZSTD_WINDOW: u32 = 17;
/// Tables of what was seen, likewise; the level alone would ask for up to 16 MiB.
const ZSTD_TABLES: u32 = 16;
/// Higher qualities hold 30 MiB and more whatever the window, and take far longer for each piece.
const BROTLI_QUALITY_MAX: u32 = 6;
/// Bytes that brotli gathers before it hands them on.
const BROTLI_BUFFER: usize = 4 * 1024;

/// What a compressor holds in the middle of a large answer, in bytes: resident memory as measured,
/// rounded up (brotli 1.2 MiB at quality 4, 2.7 at 6; zstd 0.8–1.4 MiB).
const fn cost(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Gzip => 512 * 1024,
        Encoding::Brotli => 3 * 1024 * 1024,
        Encoding::Zstd => 1536 * 1024,
    }
}

/// One answer's compressor.
pub(crate) struct Squeeze {
    encoder: Encoder,
    held: Held,
    /// Something was taken that has not come out.
    dirty: bool,
}

enum Encoder {
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(Box<ZstdEncoder<'static, Vec<u8>>>),
}

impl Squeeze {
    /// `None`: there is no room for another one. `level`: 1–9. `held_by_all`: what the worker's
    /// compressors hold.
    pub(crate) fn new(
        encoding: Encoding,
        level: u8,
        held_by_all: &Rc<Cell<usize>>,
    ) -> Option<Self> {
        let held = Held::take(held_by_all, cost(encoding))?;
        let encoder = Encoder::new(encoding, level.clamp(1, 9)).ok()?;
        Some(Self {
            encoder,
            held,
            dirty: false,
        })
    }

    /// What comes out for `bytes`; often nothing yet.
    ///
    /// # Errors
    /// The compressor failed: its answer cannot be finished.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> io::Result<Bytes> {
        self.encoder.write(bytes)?;
        self.dirty |= !bytes.is_empty();
        Ok(self.encoder.output())
    }

    /// Whether [`Squeeze::flush`] would bring something out.
    pub(crate) const fn holds_back(&self) -> bool {
        self.dirty
    }

    /// All that was taken so far, so that the client can read it now.
    ///
    /// # Errors
    /// As for [`Squeeze::take`].
    pub(crate) fn flush(&mut self) -> io::Result<Bytes> {
        self.dirty = false;
        self.encoder.flush()?;
        Ok(self.encoder.output())
    }

    /// The rest; nothing may be taken afterwards.
    ///
    /// # Errors
    /// As for [`Squeeze::take`].
    pub(crate) fn finish(self) -> io::Result<Bytes> {
        let Self { encoder, held, .. } = self;
        let rest = encoder.finish();
        drop(held);
        rest.map(Bytes::from)
    }
}

impl Encoder {
    fn new(encoding: Encoding, level: u8) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Gzip => {
                let level = flate2::Compression::new(level.into());
                Self::Gzip(Box::new(GzEncoder::new(Vec::new(), level)))
            }
            Encoding::Brotli => {
                let quality = u32::from(level).min(BROTLI_QUALITY_MAX);
                let writer = brotli::CompressorWriter::new(
                    Vec::new(),
                    BROTLI_BUFFER,
                    quality,
                    BROTLI_WINDOW,
                );
                Self::Brotli(Box::new(writer))
            }
            Encoding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), level.into())?;
                encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW))?;
                encoder.set_parameter(CParameter::HashLog(ZSTD_TABLES))?;
                encoder.set_parameter(CParameter::ChainLog(ZSTD_TABLES))?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(gzip) => gzip.write_all(bytes),
            Self::Brotli(brotli) => brotli.write_all(bytes),
            Self::Zstd(zstd) => zstd.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(gzip) => gzip.flush(),
            Self::Brotli(brotli) => brotli.flush(),
            Self::Zstd(zstd) => zstd.flush(),
        }
    }

    fn output(&mut self) -> Bytes {
        let out = match self {
            Self::Gzip(gzip) => gzip.get_mut(),
            Self::Brotli(brotli) => brotli.get_mut(),
            Self::Zstd(zstd) => zstd.get_mut(),
        };
        Bytes::from(std::mem::take(out))
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(gzip) => gzip.finish(),
            Self::Brotli(brotli) => Ok(brotli.into_inner()),
            Self::Zstd(zstd) => zstd.finish(),
        }
    }
}

/// Counted until it is dropped.
struct Held {
    by_all: Rc<Cell<usize>>,
    bytes: usize,
}

impl Held {
    fn take(by_all: &Rc<Cell<usize>>, bytes: usize) -> Option<Self> {
        let held = by_all.get() + bytes;
        if held > HELD_BY_ALL_MAX {
            return None;
        }
        by_all.set(held);
        Some(Self {
            by_all: Rc::clone(by_all),
            bytes,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.by_all.set(self.by_all.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn decoded(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // What was flushed can be read although the stream has no end yet.
        let _ = match encoding {
            Encoding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
            Encoding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
            Encoding::Zstd => zstd::stream::read::Decoder::new(bytes)
                .and_then(|mut decoder| decoder.read_to_end(&mut out)),
        };
        out
    }

    #[test]
    fn what_is_taken_comes_out_at_the_flush_and_the_rest_at_the_end() {
        for (_, encoding) in Encoding::ALL {
            for level in [1, 4, 9] {
                let mut squeeze = Squeeze::new(encoding, level, &Rc::default()).unwrap();
                let mut out = squeeze.take(b"data: one\n\n").unwrap().to_vec();
                assert!(squeeze.holds_back());
                out.extend_from_slice(&squeeze.flush().unwrap());
                assert!(!squeeze.holds_back());
                assert_eq!(decoded(encoding, &out), b"data: one\n\n", "{encoding:?}");

                let large = b"0123456789abcdef".repeat(20_000);
                for piece in large.chunks(16 * 1024) {
                    out.extend_from_slice(&squeeze.take(piece).unwrap());
                }
                out.extend_from_slice(&squeeze.finish().unwrap());
                assert!(out.len() < large.len() / 10, "{encoding:?}: {}", out.len());
                assert!(decoded(encoding, &out).ends_with(&large));
            }
        }
    }

    #[test]
    fn one_worker_holds_so_many_compressors_and_no_more() {
        let all = Rc::new(Cell::new(0));
        let most = HELD_BY_ALL_MAX / cost(Encoding::Brotli);
        let some: Vec<_> = (0..most)
            .filter_map(|_| Squeeze::new(Encoding::Brotli, 4, &all))
            .collect();

        assert_eq!(some.len(), most);
        assert!(Squeeze::new(Encoding::Brotli, 4, &all).is_none());
        drop(some);
        assert_eq!(all.get(), 0);
    }
}
