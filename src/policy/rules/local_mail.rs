//! Mail that sendmail(1) hands in, which Postfix's `non_smtpd_milters` ask about: refused at its end, as Postfix takes a refusal before
//! that for an error in its configuration. sendmail(1) never splits a message, nor does Postfix for it.

use crate::envelope::ReplyClass;
use crate::policy::reply::Refusal;

/// The refusal of one recipient as one of the whole message. A limit that the message alone exceeds says so itself.
pub fn of_whole_message(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::TooManyRecipients { .. } | Refusal::EmptySenderRecipients => {
            Refusal::CannotSplit { refusal: Box::new(refusal) }
        }
        other => other,
    }
}

/// Of two recipients' refusals the one that the message gets: what waiting cannot mend goes first.
pub fn graver(before: Option<Refusal>, refusal: Refusal) -> Refusal {
    match before {
        Some(before) if before.class() == ReplyClass::Permanent || refusal.class() == ReplyClass::Transient => before,
        _ => refusal,
    }
}
