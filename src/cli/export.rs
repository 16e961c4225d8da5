//! `export`: the enabled ranges as tables for MTAs that cannot ask.

use super::arguments::ExportFormat;
use super::{DONE, NO, print};
use crate::directory::Directory;
use crate::{config, export};
use std::path::Path;

/// Prints a table. One made from a configuration with errors would shut customers out, so then nothing is printed.
pub fn run(config: &Path, format: ExportFormat) -> u8 {
    let (problems, loaded) = config::check(config);
    let Some(loaded) = loaded.filter(|_| problems.errors() == 0) else {
        print::problems(&problems);
        print::error(format_args!("nothing is exported: {}", problems.summary()));
        return NO;
    };
    let written =
        table(&loaded.directory, format).and_then(|table| print::table(&table).map_err(|error| error.to_string()));
    match written {
        Ok(()) => DONE,
        Err(error) => {
            print::error(error);
            NO
        }
    }
}

/// The table as text.
///
/// # Errors
/// If it would be too long to be of use, in words.
pub fn table(directory: &Directory, format: ExportFormat) -> Result<String, String> {
    match format {
        ExportFormat::PostfixCidr => Ok(export::postfix_cidr(directory)),
        ExportFormat::SendmailAccess => export::sendmail_access(directory),
    }
}
