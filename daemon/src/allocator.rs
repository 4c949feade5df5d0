//! The program's allocator: mimalloc, asked in its shortest way.
//!
//! Its crate asks for every block with an alignment. Mimalloc then takes a slow way for whatever is larger
//! than 1 KiB, and lends more than was asked where the size is no power of two; a request has several such
//! blocks. What it lends without being asked for an alignment lies on 16 bytes, which nearly all types are
//! content with. Measured in docs/PERFORMANCE.md.

#![expect(
    unsafe_code,
    reason = "an allocator is unsafe by its nature; proofs stand at each call"
)]

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// Bytes on which every block of at least so many bytes lies (`MI_MAX_ALIGN_SIZE` in mimalloc's types.h).
const ALIGNED_BY_ITSELF: usize = 16;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mimalloc;

/// A type's size is a multiple of its alignment, but a [`Layout`] made by hand may be smaller than that.
const fn is_plain(layout: Layout) -> bool {
    layout.align() <= ALIGNED_BY_ITSELF && layout.align() <= layout.size()
}

// SAFETY: mimalloc's functions are an allocator in the sense of this trait: they return null or a block of
// `size` bytes that nobody else has until it is freed, never unwind, and may be called from any thread. Blocks
// lie on the alignment that is asked for: by `is_plain`, or because mimalloc is told. `mi_free` and
// `mi_realloc…` take blocks of either way.
unsafe impl GlobalAlloc for Mimalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_plain(layout) {
            // SAFETY: no precondition.
            unsafe { mi::mi_malloc(layout.size()).cast() }
        } else {
            // SAFETY: `Layout` has a power of two as its alignment.
            unsafe { mi::mi_malloc_aligned(layout.size(), layout.align()).cast() }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_plain(layout) {
            // SAFETY: no precondition.
            unsafe { mi::mi_zalloc(layout.size()).cast() }
        } else {
            // SAFETY: as in `alloc`.
            unsafe { mi::mi_zalloc_aligned(layout.size(), layout.align()).cast() }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller gives back a block of ours.
        unsafe { mi::mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= ALIGNED_BY_ITSELF && layout.align() <= size {
            // SAFETY: the caller owns the block, which is one of ours; the new one is plain.
            unsafe { mi::mi_realloc(block.cast(), size).cast() }
        } else {
            // SAFETY: the same, with the layout's alignment.
            unsafe { mi::mi_realloc_aligned(block.cast(), size, layout.align()).cast() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_lies_on_its_alignment_and_keeps_its_bytes_when_it_grows() {
        for align in [1, 2, 8, 16, 32, 64, 128, 4096] {
            for size in [
                1, 2, 7, 8, 15, 16, 24, 40, 72, 200, 1_000, 1_500, 2_200, 70_000,
            ] {
                check(size, align);
            }
        }
    }

    fn check(size: usize, align: usize) {
        let layout = Layout::from_size_align(size, align).unwrap();
        let is_aligned = |block: *mut u8| !block.is_null() && block.addr().is_multiple_of(align);
        // SAFETY: the block is used within its size, once, with the layout that it was made for.
        unsafe {
            let zeroed = Mimalloc.alloc_zeroed(layout);
            assert!(is_aligned(zeroed), "{size} on {align}");
            assert_eq!(*zeroed.add(size - 1), 0);
            Mimalloc.dealloc(zeroed, layout);

            let block = Mimalloc.alloc(layout);
            assert!(is_aligned(block), "{size} on {align}");
            block.write_bytes(7, size);
            let grown = Mimalloc.realloc(block, layout, 3 * size + 1);
            assert!(is_aligned(grown), "{size} on {align}, grown");
            assert_eq!((*grown, *grown.add(size - 1)), (7, 7));
            let layout = Layout::from_size_align(3 * size + 1, align).unwrap();
            Mimalloc.dealloc(grown, layout);
        }
    }
}
