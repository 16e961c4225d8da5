//! A customer's `users_file`: one user a line, `ADDRESS [ALIAS…]`, `#` begins a comment.

use crate::config::reading::{Complaint, FileReport, Problems, Source};
use crate::config::values;
use crate::directory::{OwnDomains, User};
use crate::envelope::Address;
use smallvec::SmallVec;
use std::ops::Range;

/// The users of a file, and where each begins in it, in bytes.
#[derive(Debug, Default)]
pub(super) struct FileUsers {
    pub users: Vec<User>,
    pub offsets: Vec<usize>,
    pub problems: Problems,
}

/// Reads all users; a line with an error is reported and left out.
pub(super) fn read_users(source: &Source, domains: &OwnDomains<'_>) -> FileUsers {
    let report = FileReport::of_text(source);
    let lines = source.text.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let (mut users, mut offsets) = (Vec::with_capacity(lines), Vec::with_capacity(lines));
    for (offset, line) in lines_of(&source.text) {
        let mut words = words_of(offset, line);
        let Some((span, word)) = words.next() else { continue };
        let address = own_address(&report, span, word, domains);
        let aliases = words.filter_map(|(span, word)| own_address(&report, span, word, domains));
        // Collected on the side, so that a million users' lists are no longer than needed.
        let found: SmallVec<[Box<str>; 8]> = aliases.map(|alias| alias.as_str().into()).collect();
        let mut aliases = Vec::with_capacity(found.len());
        aliases.extend(found);
        if let Some(address) = address {
            users.push(User { address: address.as_str().into(), aliases, logins: Vec::new(), senders: Vec::new() });
            offsets.push(offset);
        }
    }
    FileUsers { users, offsets, problems: report.into_problems() }
}

/// Where the `nth` mention of an address is on the line that begins at `offset`.
pub(super) fn find_in_line(source: &Source, offset: usize, address: &str, nth: usize) -> Option<Range<usize>> {
    let (_, line) = lines_of(&source.text[offset..]).next()?;
    let is_it = |word: &str| Address::from_path(word).is_ok_and(|found| found.as_str() == address);
    words_of(offset, line).filter(|(_, word)| is_it(word)).nth(nth).map(|(span, _)| span)
}

/// Where an address is mentioned in the file.
pub(in crate::config) fn find_in_file(source: &Source, address: &str) -> Option<Range<usize>> {
    lines_of(&source.text).find_map(|(offset, _)| find_in_line(source, offset, address, 0))
}

fn own_address(report: &FileReport<'_>, span: Range<usize>, word: &str, domains: &OwnDomains<'_>) -> Option<Address> {
    match values::address(word) {
        Ok(address) if domains.hold(address.domain()) => Some(address),
        Ok(address) => {
            report.error(span, foreign_domain(&address));
            None
        }
        Err(complaint) => {
            let complaint = match word.contains([',', ';']) {
                true => complaint.help("separate addresses with blanks"),
                false => complaint,
            };
            report.error(span, complaint);
            None
        }
    }
}

/// The complaint about a user's address outside the customer's domains.
pub(super) fn foreign_domain(address: &Address) -> Complaint {
    Complaint::new(format!("{address} is in none of the customer's domains"), "not a domain of this customer").help(
        format!(
            "add \"{}\" to `domains`, or make it a further sender of a user with [[user.sender]]",
            address.domain()
        ),
    )
}

/// Each line with the place of its first byte. A byte order mark is skipped.
fn lines_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let bare = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut offset = text.len() - bare.len();
    bare.split_inclusive('\n').map(move |line| {
        let start = offset;
        offset += line.len();
        (start, line)
    })
}

/// The words before a comment. A `#` within a word belongs to it: it may stand in an address (RFC 5322, 3.2.3).
fn words_of(offset: usize, line: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        if rest.is_empty() || rest.starts_with('#') {
            return None;
        }
        let start = offset + (line.len() - rest.len());
        let length = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let word = &rest[..length];
        rest = &rest[length..];
        Some((start..start + length, word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Domain;
    use std::path::Path;

    fn read(text: &str) -> (FileUsers, Source) {
        let source = Source::new(Path::new("acme.users").into(), text.into());
        (read_users(&source, &OwnDomains::new(&[Domain::parse("acme.example").unwrap()])), source)
    }

    #[test]
    fn one_user_a_line() {
        let (read, source) = read(
            "\u{feff}# all of us\n\nAnn@acme.example a@acme.example # boss\r\n\tkim@mx.Acme.example.\nodd#one@acme.example",
        );
        let users: Vec<_> = read.users.iter().map(|user| user.addresses().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(users, ["ann@acme.example a@acme.example", "kim@mx.acme.example", "odd#one@acme.example"]);
        assert!(read.problems.is_empty());
        let span = find_in_file(&source, "kim@mx.acme.example").unwrap();
        assert_eq!(&source.text[span], "kim@mx.Acme.example.");
    }

    #[test]
    fn errors_have_lines_and_columns() {
        let (read, _) = read("ann@acme.example, kim@other.example\nnobody\nmax@acme.example m@other.example\n");
        let lines: Vec<_> = read.problems.iter().map(|p| (p.locations[0].line, p.locations[0].column)).collect();
        assert_eq!(lines, [(1, 1), (1, 19), (2, 1), (3, 18)]);
        assert_eq!(read.users.len(), 1);
    }
}
