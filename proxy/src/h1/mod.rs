//! A strict, flat HTTP/1.1 codec: heads and chunked bodies, as pure functions over bytes that
//! have arrived. Reads and writes no socket; what is ambiguous is refused (RFC 9112).

pub(crate) mod chunked;
pub(crate) mod head;

#[cfg(test)]
mod differential;
