//! Numbers that many threads add to and one reads now and then: each thread adds to cells of its own,
//! so that none waits for another's cache line, and whoever reads adds them up.
//!
//! For the recorder alone; knows no names.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Threads that have cells of their own. Further ones share one set, which costs them more.
const OWNERS_MAX: usize = 64;
/// The set of cells that threads without one of their own share.
const COMMON: usize = OWNERS_MAX;
/// How many lines the first chunk has, as a power of two; each further one is twice as long.
const FIRST_LOG2: u32 = 5;
/// Enough for 2^32 lines: more than memory holds.
const CHUNKS: usize = 28;
const CELLS_PER_LINE: usize = 8;

/// Grows with what is reserved, by threads that add to it; never shrinks.
#[derive(Debug)]
pub(super) struct Cells {
    sets: Box<[Set]>,
    reserved: AtomicUsize,
}

/// What one thread adds to.
#[derive(Debug, Default)]
struct Set {
    chunks: [OnceLock<Box<[Line]>>; CHUNKS],
}

/// One cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; CELLS_PER_LINE]);

/// Neighbouring cells, all zero at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

impl Place {
    pub(super) const fn next(self, by: usize) -> Self {
        Self(self.0 + by)
    }
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            sets: (0..=OWNERS_MAX).map(|_| Set::default()).collect(),
            reserved: AtomicUsize::new(0),
        }
    }
}

impl Cells {
    pub(super) fn reserve(&self, cells: usize) -> Place {
        Place(self.reserved.fetch_add(cells, Ordering::Relaxed))
    }

    pub(super) fn add(&self, at: Place, value: u64) {
        self.update(at, |sum| sum.wrapping_add(value));
    }

    /// For a cell that holds a double.
    pub(super) fn add_f64(&self, at: Place, value: f64) {
        self.update(at, |bits| (f64::from_bits(bits) + value).to_bits());
    }

    /// For a cell that is never added to: raises it to `value`.
    pub(super) fn raise(&self, at: Place, value: u64) {
        let cell = self.sets[COMMON].cell(at);
        cell.fetch_max(value, Ordering::Relaxed);
    }

    pub(super) fn sum(&self, at: Place) -> u64 {
        self.values(at).fold(0, u64::wrapping_add)
    }

    pub(super) fn sum_f64(&self, at: Place) -> f64 {
        self.values(at).map(f64::from_bits).sum()
    }

    fn values(&self, at: Place) -> impl Iterator<Item = u64> {
        let cells = self.sets.iter().filter_map(move |set| set.made(at));
        cells.map(|cell| cell.load(Ordering::Relaxed))
    }

    fn update(&self, at: Place, change: impl Fn(u64) -> u64) {
        let owner = owner();
        let cell = self.sets[owner].cell(at);
        if owner == COMMON {
            // Never fails: the closure always gives a value.
            let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |v| Some(change(v)));
        } else {
            // No other thread writes here: a plain store cannot lose an addition.
            cell.store(change(cell.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }
}

impl Set {
    fn cell(&self, at: Place) -> &AtomicU64 {
        let (chunk, line, cell) = spot(at);
        let lines = self.chunks[chunk].get_or_init(|| {
            let length = 1_usize << (FIRST_LOG2 as usize + chunk);
            (0..length).map(|_| Line::default()).collect()
        });
        &lines[line].0[cell]
    }

    fn made(&self, at: Place) -> Option<&AtomicU64> {
        let (chunk, line, cell) = spot(at);
        Some(&self.chunks[chunk].get()?.get(line)?.0[cell])
    }
}

/// The chunk, the line in it, and the cell in that.
const fn spot(Place(at): Place) -> (usize, usize, usize) {
    let line = at / CELLS_PER_LINE + (1 << FIRST_LOG2);
    let log2 = line.ilog2();
    let chunk = (log2 - FIRST_LOG2) as usize;
    (chunk, line - (1 << log2), at % CELLS_PER_LINE)
}

/// Which sets have an owner, in the whole process. Released by a thread that ends, acquired by the
/// next one: what the first stored, the second continues.
static OWNED: [AtomicBool; OWNERS_MAX] = [const { AtomicBool::new(false) }; OWNERS_MAX];

thread_local! {
    static OWNER: Owner = Owner::claim();
}

struct Owner(usize);

impl Owner {
    fn claim() -> Self {
        let free = |owned: &AtomicBool| {
            owned
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        };
        Self(OWNED.iter().position(free).unwrap_or(COMMON))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(owned) = OWNED.get(self.0) {
            owned.store(false, Ordering::Release);
        }
    }
}

/// Of this thread; a thread that is ending has given its own back.
fn owner() -> usize {
    OWNER.try_with(|owner| owner.0).unwrap_or(COMMON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_places_of_their_own() {
        let mut before = spot(Place(0));
        assert_eq!(before, (0, 0, 0));
        for at in 1..50_000 {
            let here = spot(Place(at));
            assert!(here > before, "{at}");
            assert!(here.1 < 1 << (FIRST_LOG2 as usize + here.0), "{at}");
            before = here;
        }
    }

    /// More threads than sets, and threads that take over what others left.
    #[test]
    fn no_addition_is_lost_whoever_adds() {
        let cells = Cells::default();
        cells.reserve(900);
        let (count, sum) = (cells.reserve(1), cells.reserve(1));
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..OWNERS_MAX + 8 {
                    scope.spawn(|| {
                        for _ in 0..1_000 {
                            cells.add(count, 2);
                            cells.add_f64(sum, 0.5);
                        }
                    });
                }
            });
        }

        let threads = 3 * (OWNERS_MAX as u64 + 8);
        assert_eq!(cells.sum(count), threads * 2_000);
        assert_eq!(cells.sum_f64(sum), threads as f64 * 500.0);
    }

    #[test]
    fn a_cell_is_raised_but_never_lowered() {
        let cells = Cells::default();
        let at = cells.reserve(1);

        cells.raise(at, 5);
        cells.raise(at, 3);

        assert_eq!(cells.sum(at), 5);
    }
}
