//! The limits that a configuration can set. Each is named once, here; its default is in `defaults.rs`.

use crate::config::reading::TableSpec;

/// One table below `[limits]`, and the limits in it.
pub(super) struct LimitSection {
    pub key: &'static str,
    pub spec: &'static TableSpec,
    pub limits: &'static [(&'static str, LimitKey)],
}

/// `SPEC "section": "key" => LimitKey, …; other keys of that table`
macro_rules! limit_sections {
    ($($spec:ident $section:literal: $($name:literal => $key:ident),+ ; $($other:literal),*)+) => {
        /// A limit as the configuration names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum LimitKey {
            $($(#[doc = concat!("`", $section, ".", $name, "`")] $key,)+)+
        }

        impl LimitKey {
            /// Every limit, in the order of the manual.
            pub const ALL: &[LimitKey] = &[$($(LimitKey::$key,)+)+];
        }

        $(
            pub(in crate::config) static $spec: TableSpec = TableSpec {
                what: concat!("limits.", $section),
                prefix: concat!("limits.", $section, "."),
                keys: &[$($name,)+ $($other,)*],
            };
        )+

        pub(super) static SECTIONS: &[LimitSection] = &[$(LimitSection {
            key: $section,
            spec: &$spec,
            limits: &[$(($name, LimitKey::$key)),+],
        },)+];

        /// The keys of `[limits]`.
        pub(in crate::config) static LIMITS: TableSpec = TableSpec {
            what: "[limits]",
            prefix: "limits.",
            keys: &["action", "warn_at", $($section),+],
        };
    };
}

limit_sections! {
    TRANSACTION "transaction":
        "recipients" => TransactionRecipients;
    USER "user":
        "messages_per_day" => UserMessages,
        "unique_recipients_per_day" => UserUniques;
    CUSTOMER "customer":
        "recipients_per_day" => CustomerDay,
        "recipients_per_10_min" => CustomerPeak;
    UNPAID "unpaid":
        "recipients_per_day" => UnpaidDay,
        "recipients_per_10_min" => UnpaidPeak;
    LOGIN "login":
        "messages_per_day" => LoginMessages,
        "unique_recipients_per_day" => LoginUniques;
    CONNECTION "connection":
        "per_minute" => ConnectionsPerMinute,
        "simultaneous" => ConnectionsSimultaneous,
        "generic_helo_per_minute" => GenericHeloPerMinute;
        "ipv6_prefix", "exempt"
    MESSAGE "message":
        "bytes" => MessageBytes,
        "attachments_bytes" => AttachmentsBytes;
}

impl LimitKey {
    pub const COUNT: usize = LimitKey::ALL.len();

    /// Whether a customer's licences can raise it: not where it holds before the customer is known, nor for sizes.
    pub(super) fn can_be_per_license(self) -> bool {
        !matches!(
            self,
            LimitKey::MessageBytes
                | LimitKey::AttachmentsBytes
                | LimitKey::ConnectionsPerMinute
                | LimitKey::ConnectionsSimultaneous
                | LimitKey::GenericHeloPerMinute
        )
    }
}
