//! Carries the questions of an evaluation to the ledger.

use crate::directory::{CustomerLimits, LimitName, Parties};
use crate::ledger::{
    AcceptedRecipients, Ledger, LedgerAnswer, LedgerError, LimitStanding, RecipientKey, ReservationId,
};
use crate::policy::{CountedBy, LedgerQuestion, LedgerRequest};

/// Recipients of which only the number is known that limits in shadow are asked about; a message seldom has more.
const MOST_UNNAMED: u32 = 10_000;

/// Asks for a transaction, which holds `reservation`. `hurried`: a client waits for the answer.
pub(super) async fn ask(
    ledger: &Ledger,
    reservation: ReservationId,
    question: LedgerQuestion<'_>,
    hurried: bool,
) -> Result<LedgerAnswer, LedgerError> {
    let LedgerQuestion { parties, limits, request } = question;
    // Before the reservation or count, which is not asked about again.
    let in_shadow = match limits.also_in_shadow() {
        // Boxed, as it would make every question's future large.
        Some(_) => Box::pin(also_in_shadow(ledger, Some(reservation), question)).await,
        None => Vec::new(),
    };
    let mut answer = match request {
        LedgerRequest::Recipient { new, counted_by: CountedBy::Itself, .. } => {
            ledger.reserve(reservation, parties, limits, new).await
        }
        LedgerRequest::Recipient { accepted, new, counted_by: CountedBy::Milter(theirs) } => {
            look(ledger, theirs, parties, limits, accepted, new).await
        }
        LedgerRequest::Message(recipients) if hurried => ledger.commit(reservation, parties, limits, recipients).await,
        LedgerRequest::Message(recipients) => ledger.commit_unhurried(reservation, parties, limits, recipients).await,
    };
    if let Ok(answer) = &mut answer {
        answer.shadow_over.extend(in_shadow);
    }
    answer
}

/// Asks as [`ask`] would, for a transaction that does not happen: counts and reserves nothing.
pub(super) async fn ask_without_counting(
    ledger: &Ledger,
    question: LedgerQuestion<'_>,
) -> Result<LedgerAnswer, LedgerError> {
    let LedgerQuestion { parties, limits, request } = question;
    match request {
        LedgerRequest::Recipient { accepted, new, .. } => {
            let mut answer = look(ledger, None, parties, limits, accepted, new).await?;
            answer.shadow_over.extend(also_in_shadow(ledger, None, question).await);
            Ok(answer)
        }
        // Each recipient has been let through: a transaction would hold them, and count them without asking again.
        LedgerRequest::Message(recipients) => {
            let answer = ledger.look(None, parties, limits, recipients.named).await?;
            Ok(LedgerAnswer::fitting(answer.at))
        }
    }
}

/// What [`Ledger::reserve`] would answer to one more recipient, without reserving it. `except`: the reservation that holds those
/// that were accepted before, if there is one.
async fn look(
    ledger: &Ledger,
    except: Option<ReservationId>,
    parties: &Parties,
    limits: &CustomerLimits,
    accepted: &[RecipientKey],
    new: RecipientKey,
) -> Result<LedgerAnswer, LedgerError> {
    let mut answer = ledger.look(except, parties, limits, &[accepted, &[new]].concat()).await?;
    if !accepted.is_empty() {
        // The message was let through with its first recipient.
        let counts_recipients =
            |standing: &LimitStanding| !matches!(standing.limit, LimitName::UserMessages | LimitName::LoginMessages);
        answer.over.retain(counts_recipients);
        answer.shadow_over.retain(counts_recipients);
        leave_to_earlier_recipients(&mut answer, ledger, except, parties, limits, accepted).await?;
    }
    Ok(answer)
}

/// Takes out limits on unique recipients that the new one adds nothing to: those accepted before exceed them, in shadow, and it is known.
async fn leave_to_earlier_recipients(
    answer: &mut LedgerAnswer,
    ledger: &Ledger,
    except: Option<ReservationId>,
    parties: &Parties,
    limits: &CustomerLimits,
    accepted: &[RecipientKey],
) -> Result<(), LedgerError> {
    let is_unique =
        |standing: &LimitStanding| matches!(standing.limit, LimitName::UserUniques | LimitName::LoginUniques);
    if !answer.over.iter().chain(&answer.shadow_over).any(is_unique) {
        return Ok(());
    }
    let before = ledger.look(except, parties, limits, accepted).await?;
    let of_before = |limit| before.over.iter().chain(&before.shadow_over).find(|standing| standing.limit == limit);
    // A recipient that was seen before moves from `used` or `reserved` to `own`.
    let all = |standing: &LimitStanding| standing.used + standing.reserved + standing.own;
    let adds_to = |standing: &LimitStanding| {
        !is_unique(standing) || of_before(standing.limit).is_none_or(|before| all(before) < all(standing))
    };
    answer.over.retain(adds_to);
    answer.shadow_over.retain(adds_to);
    Ok(())
}

/// What [further limits in shadow](CustomerLimits::also_in_shadow) would refuse; most customers have none. Where the ledger cannot
/// answer, the question itself meets the same error.
async fn also_in_shadow(
    ledger: &Ledger,
    reservation: Option<ReservationId>,
    question: LedgerQuestion<'_>,
) -> Vec<LimitStanding> {
    let LedgerQuestion { parties, limits, request } = question;
    let Some(further) = limits.also_in_shadow() else { return Vec::new() };
    let answer = match request {
        LedgerRequest::Recipient { accepted, new, counted_by } => {
            let except = match counted_by {
                CountedBy::Itself => reservation,
                CountedBy::Milter(theirs) => theirs,
            };
            look(ledger, except, parties, further, accepted, new).await
        }
        LedgerRequest::Message(AcceptedRecipients { named, unnamed }) => {
            let unnamed = (0..unnamed.min(MOST_UNNAMED)).map(|number| RecipientKey(number.into()));
            let recipients: Vec<_> = named.iter().copied().chain(unnamed).collect();
            ledger.look(reservation, parties, further, &recipients).await
        }
    };
    answer.map_or_else(|_| Vec::new(), |answer| answer.shadow_over)
}
