//! Names, units and labels of what is counted about orders. Label values are words of enums.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_counter!(
        "acme_orders_total",
        Unit::Count,
        "Orders for certificates that ended, by result (`issued`, or the word for what failed)"
    );
    describe_gauge!(
        "acme_certificates",
        Unit::Count,
        "Certificates that are ordered by ACME, by state (`held`, `expired`, `missing`)"
    );
}

pub(crate) fn order_ended(result: &'static str) {
    counter!("acme_orders_total", "result" => result).increment(1);
}

/// How many certificates there are of each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stock {
    pub(crate) held: u32,
    pub(crate) expired: u32,
    pub(crate) missing: u32,
}

pub(crate) fn stock(stock: Stock) {
    gauge!("acme_certificates", "state" => "held").set(f64::from(stock.held));
    gauge!("acme_certificates", "state" => "expired").set(f64::from(stock.expired));
    gauge!("acme_certificates", "state" => "missing").set(f64::from(stock.missing));
}
