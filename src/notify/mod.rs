//! Who is notified by mail of limits and of signs of abuse, in which words, and that they are notified once. It sends
//! letters and does nothing else: what is done about abuse is decided in [`abuse`](crate::abuse).
//!
//! ```text
//!   service           from limits and signs of abuse to letters
//!     ├─ limit_warnings   which levels of limits are news
//!     ├─ history          what was sent, also before a restart
//!     ├─ limit_letter     the text of a letter about a limit
//!     └─ abuse_letter     the text of a letter about abuse
//! ```

mod abuse_letter;
mod history;
mod limit_letter;
mod limit_warnings;
mod service;

pub use service::{AbuseNotice, NoticeTask, Notices, notices};

/// `12,345`
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([0, 999, 1_000, 4_600_000].map(super::number), ["0", "999", "1,000", "4,600,000"]);
    }
}
