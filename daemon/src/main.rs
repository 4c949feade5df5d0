//! The `sealane` program: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: sealane::allocator::Mimalloc = sealane::allocator::Mimalloc;

fn main() -> ExitCode {
    sealane::cli::main()
}
