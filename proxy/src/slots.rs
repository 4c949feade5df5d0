//! A table by index that grows without moving what it holds, so that readers need no lock. For what
//! all workers share on the request path; its users say how large an index can become.

use std::sync::OnceLock;

/// Entries are made at their first use and stay. Memory follows the largest index ever used: each
/// chunk is twice as long as the one before.
pub(crate) struct Slots<T> {
    chunks: [OnceLock<Box<[OnceLock<T>]>>; CHUNKS],
}

/// How long the first chunk is, as a power of two.
const FIRST_LOG2: u32 = 4;
/// Enough for every index of 32 bits.
const CHUNKS: usize = 29;

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
        }
    }
}

impl<T> Slots<T> {
    /// `None` for what was never made.
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, at) = place(index);
        self.chunks[chunk].get()?.get(at)?.get()
    }

    pub(crate) fn get_or_make(&self, index: u32, make: impl FnOnce() -> T) -> &T {
        let (chunk, at) = place(index);
        let slots = self.chunks[chunk].get_or_init(|| {
            let length = 1_usize << (FIRST_LOG2 as usize + chunk);
            (0..length).map(|_| OnceLock::new()).collect()
        });
        slots[at].get_or_init(make)
    }

    /// What was made so far, by index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let chunks = self.chunks.iter().enumerate();
        let made = chunks.filter_map(|(chunk, slots)| Some((first_of(chunk), slots.get()?)));
        made.flat_map(|(first, slots)| {
            let numbered = (first..).zip(slots.iter());
            numbered.filter_map(|(at, slot)| Some((at, slot.get()?)))
        })
    }
}

impl<T> std::fmt::Debug for Slots<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").finish_non_exhaustive()
    }
}

/// The chunk of an index, and where in it.
const fn place(index: u32) -> (usize, usize) {
    let moved = index as u64 + (1 << FIRST_LOG2);
    let log2 = moved.ilog2();
    ((log2 - FIRST_LOG2) as usize, (moved - (1 << log2)) as usize)
}

/// The index with which a chunk begins.
const fn first_of(chunk: usize) -> u32 {
    ((1_u64 << (FIRST_LOG2 as usize + chunk)) - (1 << FIRST_LOG2)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_each_other_without_gap_up_to_the_last_index() {
        assert_eq!(place(0), (0, 0));
        for chunk in 0..CHUNKS - 1 {
            assert_eq!(place(first_of(chunk)), (chunk, 0));
        }
        for index in 1..100_000 {
            let ((chunk, at), (last_chunk, last_at)) = (place(index), place(index - 1));
            let next_to_it = (chunk, at) == (last_chunk, last_at + 1);
            let last_of_chunk = last_at + 1 == 1 << (FIRST_LOG2 as usize + last_chunk);
            let begins_the_next = last_of_chunk && (chunk, at) == (last_chunk + 1, 0);
            assert!(next_to_it || begins_the_next, "{index}");
        }
        assert_eq!(place(u32::MAX).0, CHUNKS - 1);
    }

    #[test]
    fn what_was_made_stays_and_the_rest_is_not_there() {
        let slots = Slots::default();

        assert_eq!(*slots.get_or_make(70, || "first"), "first");
        assert_eq!(*slots.get_or_make(70, || "second"), "first");

        assert_eq!(slots.get(70), Some(&"first"));
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(70, &"first")]);
        assert_eq!(slots.get(69), None);
        assert_eq!(slots.get(100_000), None);
    }

    #[test]
    fn threads_that_come_together_share_one_entry() {
        let slots = Slots::default();
        let made = std::sync::atomic::AtomicU32::new(0);

        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for index in 0..1_000 {
                        slots.get_or_make(index, || {
                            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                        });
                    }
                });
            }
        });

        assert_eq!(made.into_inner(), 1_000);
    }
}
