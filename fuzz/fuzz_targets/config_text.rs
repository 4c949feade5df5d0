//! Any text as a configuration file: rules or mistakes, never a panic. What is in force is printed
//! in a form that reads back to the same, and ids change only when there is no mistake.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sealane::config::load_text;
use sealane_model::IdBook;

/// There is no such folder: files that the text names are missing, and nothing is read by chance.
const NOWHERE: &str = "/nonexistent/sealane-fuzz";

fn environment(name: &str) -> Option<String> {
    match name {
        "A" => Some("a".to_owned()),
        "E" => Some(String::new()),
        "P" => Some("127.0.0.1:9000".to_owned()),
        _ => None,
    }
}

fuzz_target!(|text: &str| {
    let base = Path::new(NOWHERE);
    let mut ids = IdBook::default();
    let loaded = match load_text("fuzz.yaml", text, base, &environment, &mut ids) {
        Ok(loaded) => loaded,
        Err(report) => {
            assert!(report.mistakes() > 0);
            assert!(!report.to_string().is_empty());
            let _ = report.coloured();
            assert_eq!(report.lines().count() > 0, true);
            return;
        }
    };
    // Secrets are left out of it, so that a text with tokens need not read back.
    if text.contains("token") {
        return;
    }
    let again = load_text("effective", &loaded.effective, base, &environment, &mut ids);
    let again = again.unwrap_or_else(|report| {
        panic!(
            "what is in force does not read back:\n{}\n{report}",
            loaded.effective
        )
    });
    assert_eq!(again.effective, loaded.effective);
});
