//! The customers that most scenarios use. Addresses are written as for Postfix; see `Front::local` for Sendmail.

/// File name in `customers.d`, content.
pub const ALL: &[(&str, &str)] =
    &[("acme", ACME), ("globex", GLOBEX), ("initech", INITECH), ("hooli", HOOLI), ("umbrella", UMBRELLA)];

/// Registered users, from its addresses.
pub const ACME: &str = r#"
name = "acme"
domains = ["acme.example", "acme-mail.example"]
licenses = 250

[[user]]
address = "ann@acme.example"
aliases = ["annie@acme.example", "a.nn@acme-mail.example"]
[[user]]
address = "bob@acme.example"

[[setting]]
name = "head office"
allowed_senders = "registered-users"
[[setting.ip]]
description = "HQ"
range = "192.0.2.0/24"
[[setting.ip]]
description = "HQ, IPv6"
range = "2001:db8::/48"
"#;

/// Any sender in its domains, from its addresses.
pub const GLOBEX: &str = r#"
name = "globex"
domains = ["globex.example"]
licenses = 10

[[setting]]
name = "plant"
allowed_senders = "own-domains"
[[setting.ip]]
description = "plant"
range = "198.51.100.0/24"
"#;

/// Any sender at all, from its addresses.
pub const INITECH: &str = r#"
name = "initech"
domains = ["initech.example"]
licenses = 10

[[setting]]
name = "everything"
allowed_senders = "any"
[[setting.ip]]
description = "office"
range = "203.0.113.0/24"
"#;

/// Who logs in, over TLS, from anywhere.
pub const HOOLI: &str = r#"
name = "hooli"
domains = ["hooli.example"]
licenses = 10

[[user]]
address = "kim@hooli.example"
logins = ["kim"]

[[setting]]
name = "roaming"
allowed_senders = "registered-users"
require_auth = true
require_tls = true
"#;

/// From its addresses, over TLS.
pub const UMBRELLA: &str = r#"
name = "umbrella"
domains = ["umbrella.example"]
licenses = 10

[[setting]]
name = "laboratory"
allowed_senders = "own-domains"
require_tls = true
[[setting.ip]]
description = "laboratory"
range = "198.18.5.0/24"
"#;
