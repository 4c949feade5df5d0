//! The process's own figures, read from `/proc/self` when somebody asks. Keeps nothing.

use std::fmt::Write as _;

/// Appends resident memory, CPU time, descriptors and threads under their conventional names.
/// What cannot be read is left out.
pub(super) fn render(text: &mut String) {
    let mut gauge = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            );
        }
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = fields_after_name(&stat);
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    #[expect(
        clippy::cast_precision_loss,
        reason = "a page size and a tick rate are small"
    )]
    let (page, tick) = (
        rustix::param::page_size() as f64,
        rustix::param::clock_ticks_per_second() as f64,
    );

    // proc_pid_stat(5): fields 14, 15 (utime, stime), 20 (threads), 24 (rss); 3 is the first here.
    let cpu = field(11)
        .zip(field(12))
        .map(|(user, system)| (user + system) / tick);
    gauge(
        "process_cpu_seconds_total",
        "counter",
        "CPU time spent, user and system.",
        cpu,
    );
    let resident = field(21).map(|pages| pages * page);
    gauge(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory.",
        resident,
    );
    gauge("process_threads", "gauge", "Threads.", field(17));
    #[expect(
        clippy::cast_precision_loss,
        reason = "descriptors number far below 2^53"
    )]
    let descriptors = std::fs::read_dir("/proc/self/fd")
        .ok()
        .map(|dir| dir.count() as f64);
    gauge(
        "process_open_fds",
        "gauge",
        "Open file descriptors.",
        descriptors,
    );
}

/// The name in parentheses may hold spaces and parentheses: fields begin after the last one.
fn fields_after_name(stat: &str) -> Vec<&str> {
    stat.rfind(')')
        .map(|at| stat[at + 1..].split_ascii_whitespace().collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let fields = fields_after_name("7 (a) b) (c)) S 1 7 7");

        assert_eq!(fields, ["S", "1", "7", "7"]);
    }

    #[test]
    fn the_own_process_has_memory_and_descriptors() {
        let mut text = String::new();

        render(&mut text);

        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert!(text.contains("\nprocess_open_fds "), "{text}");
    }
}
