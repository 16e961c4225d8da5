//! The enabled ranges as tables for MTAs that cannot ask.

mod postfix;
mod ranges;
mod sendmail;

use crate::directory::Directory;
use ranges::ExportedRanges;

/// A cidr_table(5) for Postfix.
pub fn postfix_cidr(directory: &Directory) -> String {
    postfix::cidr_table(&ExportedRanges::of(directory))
}

/// The text of Sendmail's access map.
///
/// # Errors
/// It would be too long to be of use, in words.
pub fn sendmail_access(directory: &Directory) -> Result<String, String> {
    sendmail::access_map(&ExportedRanges::of(directory))
}
