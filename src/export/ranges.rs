//! Which ranges a table names.

use crate::directory::Directory;
use ipnet::IpNet;
use std::collections::BTreeMap;

/// The ranges in which an address alone makes a client a customer's, sorted, each with the settings that say so.
///
/// A range of a setting with `require_auth` is not among them: there the address is only half of the proof, and a
/// table that named it would let everybody at that address relay without logging in. Such clients get the MTA's
/// permission by their login.
#[derive(Debug, Default)]
pub(super) struct ExportedRanges {
    pub nets: BTreeMap<IpNet, Vec<String>>,
    /// Settings whose ranges were left out.
    pub left_out: Vec<String>,
}

impl ExportedRanges {
    pub fn of(directory: &Directory) -> ExportedRanges {
        let mut exported = ExportedRanges::default();
        for customer in directory.customers() {
            for setting in customer.settings.iter().filter(|setting| setting.enabled) {
                let name = one_line(&format!("{}, {}", customer.name, setting.name));
                let enabled = setting.ranges.iter().filter(|range| range.enabled);
                if setting.require_auth {
                    if enabled.count() > 0 {
                        exported.left_out.push(name);
                    }
                    continue;
                }
                for range in enabled {
                    let names = exported.nets.entry(range.net).or_default();
                    if !names.contains(&name) {
                        names.push(name.clone());
                    }
                }
            }
        }
        exported.left_out.sort();
        exported
    }

    /// What stands above the table, as comments.
    pub fn heading(&self, made_for: &str) -> String {
        let mut text = format!(
            "# {made_for}, made by relaykeeper from the enabled address ranges of its customers.\n\
             # It only says which clients may relay at all. TLS, senders and limits are checked by relaykeeper alone.\n"
        );
        for name in &self.left_out {
            text.push_str(&format!("# left out, because it also requires SMTP AUTH: {name}\n"));
        }
        text
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
