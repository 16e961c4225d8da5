//! What the socketmap tables hold: for which key, for whom, and what is never told.

use crate::common::installation::{Installation, Running};
use crate::common::soon;
use crate::main_file;
use relaykeeper::listen::Peer;
use relaykeeper::socketmap::SocketmapService;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const ACME: &str = r#"
    name = "acme"
    domains = ["acme.example"]
    licenses = 100
    user_gateways = true
    outbound_gateway = "[mx.acme.example]:25"
    [[user]]
    address = "kim@acme.example"
    [[user.sender]]
    address = "kim@partner.example"
    gateway = "[smtp.partner.example]:587"
    username = "kim"
    password_file = "secrets/kim"
    [[user.sender]]
    address = "kim@open.example"
    gateway = "[2001:db8::25]"
    [[user.sender]]
    address = "kim@plain.example"
    [[setting]]
    name = "office"
    allowed_senders = "registered-users"
    ip = [{ range = "192.0.2.0/25" }, { range = "192.0.2.128/25", enabled = false }, { range = "2001:db8::/48" }]
    [[setting]]
    name = "both"
    allowed_senders = "registered-users"
    require_auth = true
    ip = [{ range = "198.51.100.0/24" }]
    [[setting]]
    name = "closed"
    enabled = false
    allowed_senders = "registered-users"
    ip = [{ range = "203.0.113.0/24" }]
"#;

/// Without gateways.
const BOLT: &str = r#"
    name = "bolt"
    domains = ["bolt.example", "branch.acme.example"]
    licenses = 1
    [[user]]
    address = "tom@bolt.example"
    [[setting]]
    name = "login"
    allowed_senders = "own-domains"
    require_auth = true
"#;

fn main_with_socketmap(more: &str) -> String {
    main_file(&format!("listen.socketmap = [\"inet:127.0.0.1:2\"]\n{more}"))
}

fn installation(more: &str) -> Installation {
    let files = [("acme.toml", ACME), ("bolt.toml", BOLT), ("secrets/kim", "s3:cret \n")];
    Installation::of(&main_with_socketmap(more), files)
}

/// A process of Postfix that looks things up.
pub struct Asker {
    pub stream: DuplexStream,
}

impl Asker {
    pub fn connect(running: &Running, peer: Peer) -> Asker {
        Asker::of(&SocketmapService::new(running.engine.clone()), peer)
    }

    pub fn of(service: &Arc<SocketmapService>, peer: Peer) -> Asker {
        let (stream, other) = tokio::io::duplex(1 << 16);
        let service = service.clone();
        tokio::spawn(async move { service.serve_connection(other, peer).await });
        Asker { stream }
    }

    pub async fn ask(&mut self, request: &str) -> String {
        self.stream.write_all(format!("{}:{request},", request.len()).as_bytes()).await.unwrap();
        self.answer().await.expect("an answer")
    }

    /// `None`: the connection was closed instead.
    pub async fn answer(&mut self) -> Option<String> {
        soon("an answer", async {
            let mut length = String::new();
            loop {
                match self.stream.read_u8().await.ok()? {
                    b':' => break,
                    digit => length.push(digit as char),
                }
            }
            let mut bytes = vec![0; length.parse::<usize>().unwrap() + 1];
            self.stream.read_exact(&mut bytes).await.ok()?;
            assert_eq!(bytes.pop(), Some(b','));
            Some(String::from_utf8(bytes).unwrap())
        })
        .await
    }
}

async fn expect(asker: &mut Asker, cases: &[(&str, &str)]) {
    for (request, expected) in cases {
        assert_eq!(asker.ask(request).await, *expected, "{request}");
    }
}

#[tokio::test]
async fn clients_are_those_whose_address_alone_lets_them_in() {
    let running = installation("").run();
    let mut asker = Asker::connect(&running, Peer::Local);
    expect(
        &mut asker,
        &[
            ("clients 192.0.2.7", "OK OK"),
            ("clients 2001:db8::7", "OK OK"),
            ("clients 2001:DB8:0:0:0:0:0:7", "OK OK"),
            ("clients ::ffff:192.0.2.7", "OK OK"),
            ("clients 192.0.2.200", "NOTFOUND "),  // range off
            ("clients 198.51.100.7", "NOTFOUND "), // AUTH as well
            ("clients 203.0.113.7", "NOTFOUND "),  // setting off
            ("clients 127.0.0.1", "NOTFOUND "),
            ("clients mx.acme.example", "NOTFOUND "),
            ("clients unknown", "NOTFOUND "),
            ("clients 192.0.2.0/25", "NOTFOUND "),
            ("clients ", "NOTFOUND "),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_senders_next_hop() {
    let running = installation("relay.gateway_transport = \"gateway\"").run();
    let mut asker = Asker::connect(&running, Peer::Ip("192.0.2.1".parse().unwrap()));
    expect(
        &mut asker,
        &[
            // The gateway of the user's further address goes before that of the customer.
            ("transport kim@partner.example", "OK gateway:[smtp.partner.example]:587"),
            ("relayhost kim@partner.example", "OK [smtp.partner.example]:587"),
            ("transport Kim+tag@PARTNER.example", "OK gateway:[smtp.partner.example]:587"),
            ("relayhost <kim@partner.example>", "OK [smtp.partner.example]:587"),
            ("relayhost kim@open.example", "OK [ipv6:2001:db8::25]"),
            ("transport kim@acme.example", "OK smtp:[mx.acme.example]:25"),
            ("relayhost anybody@mail.acme.example", "OK [mx.acme.example]:25"),
            ("relayhost kim@plain.example", "OK [mx.acme.example]:25"),
            // Another customer's, below that domain
            ("relayhost ann@branch.acme.example", "NOTFOUND "),
            ("relayhost tom@bolt.example", "NOTFOUND "),
            ("relayhost other@partner.example", "NOTFOUND "),
            ("relayhost ", "NOTFOUND "),
            ("relayhost <>", "NOTFOUND "),
            ("relayhost @acme.example", "NOTFOUND "),
            ("relayhost acme.example", "NOTFOUND "),
            ("relayhost kim", "NOTFOUND "),
        ],
    )
    .await;
}

#[tokio::test]
async fn forwarded_mail_does_not_go_through_the_gateway_of_whom_it_is_from() {
    let running = installation("relay.sender_forms = [\"plus\", \"batv\", \"srs\"]").run();
    let mut asker = Asker::connect(&running, Peer::Local);
    let forwarded = "srs0=abcd=tt=partner.example=kim@acme.example";
    expect(
        &mut asker,
        &[
            (&format!("relayhost {forwarded}"), "OK [mx.acme.example]:25"),
            (&format!("credentials {forwarded}"), "NOTFOUND "),
            ("relayhost prvs=0123456789=kim@partner.example", "OK [smtp.partner.example]:587"),
        ],
    )
    .await;
}

#[tokio::test]
async fn credentials_are_told_for_their_sender_only_and_on_unix_sockets_only() {
    let installation = installation("");
    let running = installation.run();
    let mut local = Asker::connect(&running, Peer::Local);
    expect(
        &mut local,
        &[
            ("credentials kim@partner.example", "OK kim:s3:cret "),
            ("credentials KIM+x@partner.example", "OK kim:s3:cret "),
            ("credentials kim@open.example", "NOTFOUND "),
            ("credentials kim@acme.example", "NOTFOUND "),
            ("credentials tom@bolt.example", "NOTFOUND "),
            ("credentials <>", "NOTFOUND "),
            // Postfix goes on to ask for the server, whoever the sender is.
            ("credentials smtp.partner.example", "NOTFOUND "),
            ("credentials [smtp.partner.example]:587", "NOTFOUND "),
            ("credentials @partner.example", "NOTFOUND "),
        ],
    )
    .await;
    let mut remote = Asker::connect(&running, Peer::Ip("127.0.0.1".parse().unwrap()));
    for key in ["kim@partner.example", "tom@bolt.example"] {
        let answer = remote.ask(&format!("credentials {key}")).await;
        assert_eq!(answer, "PERM credentials are available over unix sockets only, not over TCP");
    }
}

#[tokio::test]
async fn a_password_is_read_anew_and_never_logged() {
    let installation = installation("log.level = \"debug\"");
    let running = installation.run();
    let mut asker = Asker::connect(&running, Peer::Local);
    assert_eq!(asker.ask("credentials kim@partner.example").await, "OK kim:s3:cret ");
    running.engine.replace_snapshot(installation.with_customer("secrets/kim", "changed"));
    assert_eq!(asker.ask("credentials kim@partner.example").await, "OK kim:changed");
    installation.set_mode("secrets/kim", 0o644);
    for _ in 0..3 {
        let answer = asker.ask("credentials kim@partner.example").await;
        assert_eq!(answer, "TEMP the password file cannot be used; see relaykeeper's log");
    }
    let log = running.log_lines();
    let about: Vec<_> = log.iter().filter(|line| line.contains("password_file")).collect();
    assert_eq!(about.len(), 1, "{log:#?}");
    assert!(about[0].contains("kim@partner.example cannot be used: it has mode 0644"), "{about:?}");
    let all = format!("{log:?} {:?} {:?}", running.engine.snapshot(), installation.loaded);
    assert!(!all.contains("s3:cret") && !all.contains("changed"), "{all}");
}

#[tokio::test]
async fn what_is_out_of_order_is_put_off() {
    let bad = ACME.replace("licenses = 100", "licenses = \"many\"");
    let files = [("acme.toml", bad.as_str()), ("bolt.toml", BOLT), ("secrets/kim", "x")];
    let running = Installation::of(&main_with_socketmap(""), files).run();
    let mut asker = Asker::connect(&running, Peer::Local);
    for request in [
        "clients 192.0.2.7",
        "transport kim@partner.example",
        "relayhost kim@acme.example",
        "credentials kim@partner.example",
    ] {
        let answer = asker.ask(request).await;
        assert!(answer.starts_with("TEMP ") && answer.contains("errors; see relaykeeper's log"), "{request}: {answer}");
    }
    // Whoever is known not to be concerned is not.
    expect(&mut asker, &[("relayhost tom@bolt.example", "NOTFOUND "), ("relayhost x@else.example", "NOTFOUND ")]).await;
}
