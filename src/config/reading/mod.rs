//! From a file's text to typed values, with a message for whatever is wrong. Knows TOML, but none of our keys.

mod diagnostic;
mod file_report;
mod problems;
mod source;
mod syntax;
mod table;
mod unclosed;
mod unknown_key;
mod unreadable;

pub use diagnostic::{Diagnostic, Severity, Style};
pub(super) use file_report::{Complaint, FileReport};
pub(super) use problems::MAX_SHOWN_OF_FILE;
pub use problems::{MAX_SHOWN, Problems, how_many};
pub use source::{Location, MAX_CUSTOMER_FILE, MAX_MAIN_FILE, MAX_USERS_FILE};
pub(super) use source::{Source, quoted};
pub(super) use table::{Item, Table};
pub(super) use unknown_key::{FileSpec, TOP_LEVEL, TableSpec};
pub(super) use unreadable::{describe, describe_file};
