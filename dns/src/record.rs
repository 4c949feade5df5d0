//! records
/// stub
#[derive(Clone, Debug)]
pub struct Record;
