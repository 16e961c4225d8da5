//! `[policy]`: what holds for Postfix's policy protocol only.

use crate::config::defaults::policy as default;
use crate::config::reading::{Table, TableSpec};

pub(super) static POLICY: TableSpec =
    TableSpec { what: "[policy]", prefix: "policy.", keys: &["count_at", "on_rewrite"] };

/// `[policy]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyOptions {
    pub count_at: CountAt,
    pub on_rewrite: OnRewrite,
}

/// When a message counts that only the policy service sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountAt {
    EndOfMessage,
    Rcpt,
    /// At the end of the message; but until an MTA has sent its first END-OF-MESSAGE, its abandoned instances count.
    Auto,
}

/// What the policy service, which cannot rewrite, answers where the sender has to be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRewrite {
    Continue,
    Defer,
    Reject,
    /// `Continue` where a milter session is open for the client, else `Defer`.
    Auto,
}

pub(super) fn read_policy(table: &Table<'_>) -> PolicyOptions {
    let count_at = table.get("count_at").and_then(|item| {
        item.choice(&[("auto", CountAt::Auto), ("end-of-message", CountAt::EndOfMessage), ("rcpt", CountAt::Rcpt)])
    });
    let on_rewrite = table.get("on_rewrite").and_then(|item| {
        item.choice(&[
            ("auto", OnRewrite::Auto),
            ("continue", OnRewrite::Continue),
            ("defer", OnRewrite::Defer),
            ("reject", OnRewrite::Reject),
        ])
    });
    PolicyOptions {
        count_at: count_at.unwrap_or(default::COUNT_AT),
        on_rewrite: on_rewrite.unwrap_or(default::ON_REWRITE),
    }
}
