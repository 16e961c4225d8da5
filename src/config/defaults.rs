//! Every default of the configuration, in the order of relaykeeper.toml(5).
//!
//! What depends on the machine or on another key is not here, but where its key is read: `relay.hostname` (the host's
//! own name), `mail.from` (postmaster at that name).

pub(super) mod listen {
    pub const SOCKET_MODE: u32 = 0o660;
}

pub(super) mod relay {
    use crate::config::{OnFailure, SenderForm};
    use ipnet::{IpNet, Ipv4Net, Ipv6Net};
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    /// Relative to the main file's folder.
    pub const CUSTOMERS: &str = "customers.d";
    pub const ON_FAILURE: OnFailure = OnFailure::Defer;
    pub const DRAIN: Duration = Duration::from_secs(30);
    pub const RESERVATION_TIMEOUT: Duration = Duration::from_secs(600);
    pub const EXEMPT_CLIENTS: [IpNet; 2] = [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    ];
    pub const SENDER_FORMS: [SenderForm; 1] = [SenderForm::Plus];
    pub const IDENTIFY_BY_ADDRESS: bool = false;
    pub const SENDER_MUST_MATCH_LOGIN: bool = false;
    pub const TRUST_PROXIED_TLS: bool = false;
    pub const MAX_RANGE_ADDRESSES: u64 = 65_536;
    /// A transport of Postfix (master(5)).
    pub const GATEWAY_TRANSPORT: &str = "smtp";
}

pub(super) mod log {
    use crate::report::{Destination, Level};

    pub const TO: Destination = Destination::Syslog;
    pub const LEVEL: Level = Level::Info;
}

pub(super) mod store {
    use crate::config::{OnOutage, Sync};

    pub const PATH: &str = "/var/lib/relaykeeper";
    pub const SYNC: Sync = Sync::Full;
    pub const ON_OUTAGE: OnOutage = OnOutage::Local;
}

pub(super) mod policy {
    use crate::config::{CountAt, OnRewrite};

    pub const COUNT_AT: CountAt = CountAt::Auto;
    pub const ON_REWRITE: OnRewrite = OnRewrite::Auto;
}

/// `[limits]`: the numbers of the hosted service.
pub(super) mod limits {
    use crate::config::{LimitKey, MaxRule};
    use crate::directory::Action;

    pub const ACTION: Action = Action::Defer;
    /// In percent.
    pub const WARN_AT: [u8; 3] = [80, 90, 100];
    /// `connection.ipv6_prefix`, in bits.
    pub const CONNECTION_IPV6_PREFIX: u8 = 64;

    pub const fn max(limit: LimitKey) -> MaxRule {
        match limit {
            // transaction.recipients
            LimitKey::TransactionRecipients => MaxRule::Number(100),
            // user.messages_per_day, user.unique_recipients_per_day
            LimitKey::UserMessages | LimitKey::UserUniques => MaxRule::Number(10_000),
            // customer.recipients_per_day, customer.recipients_per_10_min
            LimitKey::CustomerDay => MaxRule::PerLicense { per_license: 130, cap: Some(4_600_000) },
            LimitKey::CustomerPeak => MaxRule::PerLicense { per_license: 9, cap: Some(319_444) },
            // unpaid.recipients_per_day, unpaid.recipients_per_10_min
            LimitKey::UnpaidDay => MaxRule::Number(100),
            LimitKey::UnpaidPeak => MaxRule::Number(50),
            // login.messages_per_day, login.unique_recipients_per_day
            LimitKey::LoginMessages | LimitKey::LoginUniques => MaxRule::Unlimited,
            // message.bytes, message.attachments_bytes
            LimitKey::MessageBytes => MaxRule::Unlimited,
            LimitKey::AttachmentsBytes => MaxRule::Number(26_214_400),
            // connection.per_minute, connection.simultaneous, connection.generic_helo_per_minute
            LimitKey::ConnectionsPerMinute => MaxRule::Number(120),
            LimitKey::ConnectionsSimultaneous => MaxRule::Number(50),
            LimitKey::GenericHeloPerMinute => MaxRule::Number(10),
        }
    }
}

pub(super) mod mail {
    pub const SENDMAIL: &str = "/usr/sbin/sendmail";
    pub const WARN_USERS: bool = false;
}

/// `[abuse]`; without the section nobody is watched.
pub(super) mod abuse {
    use crate::config::{OnAbuse, Thresholds};
    use std::time::Duration;

    pub const STRIPPED: bool = false;
    /// What a filter writes into a header that is named with `header`.
    pub const HEADER_VALUES: [&str; 5] = ["yes*", "spam*", "infected*", "reject*", "true*"];
    pub const WINDOW: Duration = Duration::from_secs(3_600);
    pub const THRESHOLDS: Thresholds = Thresholds {
        spam_count: 20,
        customer_spam_count: 100,
        spam_share: 25,
        recipients_rise: 10,
        recipients_least: 500,
        refused_recipients: 500,
        customer_refused_recipients: 2_500,
        networks: 10,
    };
    pub const ON_ABUSE: OnAbuse = OnAbuse::Notify;
}

/// A customer's file.
pub(super) mod customer {
    use crate::directory::Billing;

    pub const BILLING: Billing = Billing::Paid;
    pub const USER_GATEWAYS: bool = false;
    /// `[[setting]]`
    pub const SETTING_ENABLED: bool = true;
    pub const REQUIRE_AUTH: bool = false;
    pub const REQUIRE_TLS: bool = false;
    pub const SHADOW: bool = false;
    /// `[[setting.ip]]`
    pub const RANGE_ENABLED: bool = true;
}
