//! Logins whose TLS ended before the MTA, or that need none: webmail on the host, Dovecot's submission proxy.

use crate::relay::{Front, Setup, on};

const STAFF: &str = r#"
name = "hooli"
domains = ["hooli.example"]
licenses = 5
[[setting]]
name = "staff"
allowed_senders = "registered-users"
require_auth = true
[[user]]
address = "kim@hooli.example"
"#;

/// The page's configuration is what is tested.
fn page_configuration(nth: usize) -> &'static str {
    let block = include_str!("../../docs/logins-without-tls.md").split("```toml\n").nth(nth + 1).expect("a block");
    let (header, key) = block.split_once("```").unwrap().0.split_once('\n').unwrap();
    assert_eq!(header, "[relay]");
    key.trim()
}

const TLS_NEEDED: &str = "Must issue a STARTTLS command first";

/// cases/setups 01: webmail on the host logs in to the loopback address; on the internet everybody needs TLS.
fn setup_01_webmail_on_the_host(front: Front) {
    let key = format!("relay.{}", page_configuration(0));
    let relay = Setup::new().customer("hooli", STAFF).main(&key).start(front);
    let mut webmail = relay.client("127.0.0.1", "webmail.example.net");
    webmail.login("kim@hooli.example", "secret-kim");
    relay.deliver(&mut webmail, "kim@hooli.example", &["you@dest.example"]);
    webmail.quit();
    relay.daemon.await_counts("kim@hooli.example", "messages_per_day", 1, 0);
    let mut elsewhere = relay.client("203.0.113.9", "laptop.home.example");
    elsewhere.login("kim@hooli.example", "secret-kim");
    let sent = elsewhere.send("kim@hooli.example", &["you@dest.example"]);
    relay.assert_refused(&sent, "530 5.7.0", TLS_NEEDED);
    elsewhere.quit();
}
on!(setup_01_webmail_on_the_host: every_front);

const XCLIENT: &str =
    "XCLIENT ADDR=203.0.113.50 PORT=39074 LOGIN=kim@hooli.example HELO=laptop.home.example PROTO=ESMTP";

/// cases/setups 02: what Dovecot's submission service says to Postfix.
fn setup_02_submission_proxy(front: Front) {
    let key = format!("relay.{}", page_configuration(1));
    let relay = Setup::new().customer("hooli", STAFF).main(&key).start(front);
    let mut client = relay.connect("127.0.0.1");
    client.ehlo("proxy.example.net");
    assert!(client.command(XCLIENT).accepted());
    client.ehlo("laptop.home.example");
    relay.deliver(&mut client, "kim@hooli.example", &["you@dest.example"]);
    client.quit();
    relay.daemon.await_line(&["verdict=accept", "login=kim@hooli.example", "client=203.0.113.50"]);
    relay.daemon.await_counts("kim@hooli.example", "messages_per_day", 1, 0);
}
on!(setup_02_submission_proxy: postfix_policy, postfix_milter, postfix_both);

/// Unless the operator says so, such a login counts as what Postfix calls it: without TLS.
fn submission_proxy_that_is_not_trusted(front: Front) {
    let relay = Setup::new().customer("hooli", STAFF).start(front);
    let mut client = relay.connect("127.0.0.1");
    client.ehlo("proxy.example.net");
    assert!(client.command(XCLIENT).accepted());
    client.ehlo("laptop.home.example");
    let sent = client.send("kim@hooli.example", &["you@dest.example"]);
    relay.assert_refused(&sent, "530 5.7.0", TLS_NEEDED);
    client.quit();
    relay.daemon.await_line(&["reason=tls-required", "hint=", "relay.trust_proxied_tls"]);
}
on!(submission_proxy_that_is_not_trusted: postfix_policy, postfix_milter, postfix_both);
