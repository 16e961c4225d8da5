//! The configuration: text → raw tables with positions → checked model. All errors are reported at once.

mod model;

pub use model::{
    ConnectionLimits, CountAt, LimitRule, LimitRules, Listen, Log, LogLevel, LogTarget, Mail, MailRoute, MaxRule,
    OnFailure, OnOutage, OnRewrite, PolicyOptions, Relay, SenderForm, Settings, Store, Sync,
};
