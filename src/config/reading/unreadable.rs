//! Files and folders that cannot be read, in words.

use super::diagnostic::Diagnostic;
use super::source::{Location, Unreadable, quoted};
use crate::files::denied;
use std::path::Path;
use std::sync::Arc;

/// `what` is what the file is called in the documentation.
pub(in crate::config) fn describe(error: Unreadable, file: Arc<Path>, what: &str) -> Diagnostic {
    let name = quoted(&file.to_string_lossy());
    match error {
        Unreadable::Io(error) => {
            let error = denied::administrators_file(&file, error).to_string();
            // What to do about it has a line of its own.
            let (why, command) = error.split_once("; run: ").map_or((&*error, None), |(why, run)| (why, Some(run)));
            let diagnostic = Diagnostic::error(format!("the {what} {name} cannot be read: {why}"));
            command.into_iter().fold(diagnostic, |diagnostic, command| diagnostic.help(format!("run: {command}")))
        }
        Unreadable::NotRegular => Diagnostic::error(format!("the {what} {name} is not a regular file")),
        Unreadable::TooLarge { max } => {
            Diagnostic::error(format!("the {what} {name} is larger than {} MiB", max >> 20))
        }
        Unreadable::NotUtf8(place) => {
            Diagnostic::error(format!("the {what} is not text in UTF-8")).at(*place).help("save the file as UTF-8")
        }
    }
}

/// As [`describe`], with the file itself as the place.
pub(in crate::config) fn describe_file(error: Unreadable, file: Arc<Path>, what: &str) -> Diagnostic {
    let diagnostic = describe(error, file.clone(), what);
    if diagnostic.locations.is_empty() { diagnostic.at(Location::file(file, "")) } else { diagnostic }
}
