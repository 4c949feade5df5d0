//! The file as JSON Schema (draft 2020-12), for editors. Made from the definitions in `spec`.

use serde_json::{Map, Value, json};

use super::decode::Shape;
use super::spec::FileSpec;

/// JSON Schema of the configuration file.
#[must_use]
pub fn schema() -> Value {
    let mut defs = Map::new();
    let root = FileSpec::schema(&mut defs);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sealane configuration",
        "$defs": defs,
    });
    if let (Some(schema), Value::Object(root)) = (schema.as_object_mut(), root) {
        schema.extend(root);
    }
    schema
}
