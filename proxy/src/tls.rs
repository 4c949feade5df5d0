//! Certificates by server name.
/// stub
#[derive(Clone, Debug)]
pub struct ServerTls;
