//! names
/// stub
#[derive(Clone, Debug)]
pub struct Name;
