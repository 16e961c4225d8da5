//! cidr_table(5).

use super::ranges::ExportedRanges;
use std::fmt::Write;

/// For `smtpd_relay_restrictions = check_client_access cidr:FILE, …`. Comments have lines of their own: Postfix would
/// take them for a part of the result.
pub(super) fn cidr_table(ranges: &ExportedRanges) -> String {
    let mut table = ranges.heading("cidr_table(5)");
    for (net, names) in &ranges.nets {
        for name in names {
            let _ = writeln!(table, "# {name}");
        }
        let _ = writeln!(table, "{net} OK");
    }
    table
}
