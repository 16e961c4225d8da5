//! Users' gateways and a customer's own (relay service, section 10), through a real Postfix to a second one that lets in
//! only who logs in, over TLS, and only with the address of that login.

use crate::bed::{Folder, Mta, MtaSetup, certificate};
use crate::daemon::Daemon;
use crate::relay::{Front, Relay, Setup};
use crate::sink::Sink;
use crate::smtp::Client;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The partner's server: kim and lee have a login each.
fn partner(folder: &Folder, sink: &Sink) -> Mta {
    let setup = MtaSetup {
        logins: vec!["kim@partner.example:s3cret: kim".replace(' ', "_"), "lee@partner.example:secret-lee".to_owned()],
        main_cf: "smtpd_tls_auth_only = yes\n\
            smtpd_sender_login_maps = inline:{{kim@partner.example=kim@partner.example},{lee@partner.example=lee@partner.example}}\n\
            smtpd_sender_restrictions = reject_sender_login_mismatch\n\
            smtpd_relay_restrictions = permit_sasl_authenticated, reject\n"
            .to_owned(),
        sink_port: sink.port,
        ..MtaSetup::default()
    };
    Mta::postfix(&folder.path().join("partner"), &setup)
}

fn password(folder: &Folder, name: &str, password: &str) {
    let secrets = folder.path().join("relaykeeper/customers.d/secrets");
    fs::create_dir_all(&secrets).unwrap();
    let path = secrets.join(name);
    fs::write(&path, format!("{password}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
}

fn acme(partner: u16, outbound: u16) -> String {
    let further = |name: &str, host: &str, login: &str| {
        format!(
            "[[user]]\naddress = \"{name}@acme.example\"\n[[user.sender]]\naddress = \"{name}@partner.example\"\n\
             gateway = \"[{host}]:{partner}\"\n{login}"
        )
    };
    let login = |name: &str| format!("username = \"{name}@partner.example\"\npassword_file = \"secrets/{name}\"\n");
    format!(
        "name = \"acme\"\ndomains = [\"acme.example\"]\nlicenses = 10\nuser_gateways = true\n\
         outbound_gateway = \"[127.0.0.1]:{outbound}\"\n{}{}{}\
         [[setting]]\nname = \"office\"\nallowed_senders = \"any\"\n[[setting.ip]]\nrange = \"192.0.2.0/24\"\n",
        further("kim", "127.0.0.1", &login("kim")),
        further("lee", "::1", &login("lee")),
        further("guest", "127.0.0.1", ""),
    )
}

const DOCUMENTATION: &str = include_str!("../../docs/gateways.md");

/// The block of the documentation that begins so.
fn documented(begin: &str) -> &'static str {
    let (_, rest) = DOCUMENTATION.split_once(&format!("```\n{begin}")).expect("it is in docs/gateways.md");
    let length = begin.len() + rest.find("```").unwrap();
    let start = DOCUMENTATION.len() - rest.len() - begin.len();
    &DOCUMENTATION[start..start + length]
}

/// The lines of docs/gateways.md, but that the partner has an address instead of a name.
fn relay(folder: Folder, acme: &str) -> Relay {
    let socket = folder.path().join("relaykeeper/socketmap.sock");
    let here = |lines: &str| lines.replace("unix:relaykeeper/socketmap.sock", &format!("unix:{}", socket.display()));
    let gateway = here(documented("gateway   unix")).replace("  -  y", "  -  n")
        + "  -o smtp_tls_secure_cert_match=mx.test.example\n"
        + &format!("  -o smtp_tls_CAfile={}\n", certificate().display());
    Setup::new()
        .main(&format!(
            "[listen]\nsocketmap = [\"unix:{}\"]\n[relay]\nprivate_gateways = [\"127.0.0.0/8\", \"::1\"]\n\
             gateway_transport = \"gateway\"",
            socket.display()
        ))
        .customer("acme", acme)
        .customer("globex", crate::customers::GLOBEX)
        .postfix(&here(documented("sender_dependent_default_transport_maps")))
        .postfix_services(&gateway)
        .start_in(Front::PostfixBoth, folder)
}

#[test]
fn each_senders_mail_goes_its_own_way_with_its_own_login() {
    let folder = Folder::new();
    let (partners_folder, outbound_folder) = (Folder::new(), Folder::new());
    let (behind_partner, outbound) = (Sink::start(&partners_folder), Sink::start(&outbound_folder));
    let partner = partner(&folder, &behind_partner);
    password(&folder, "kim", "s3cret:_kim");
    password(&folder, "lee", "secret-lee");
    let mut relay = relay(folder, &acme(partner.port, outbound.port));
    let mut client = relay.client("192.0.2.7", "mx.acme.example");
    let mut send = |sender: &str| {
        let sent = client.send(sender, &["you@dest.example"]);
        assert!(sent.accepted(), "{sender}: {sent:?}");
        sent.id
    };
    // In turn, so that no connection could serve two senders.
    for _ in 0..2 {
        for name in ["kim", "lee"] {
            let id = send(&format!("{name}@partner.example"));
            // Neither rewritten, although the customer's setting would rewrite others there, nor sent through its own gateway.
            assert_eq!(behind_partner.await_mail(&id).sender, format!("{name}@partner.example"));
            partner.await_line(&[&format!("sasl_method=PLAIN, sasl_username={name}@partner.example")]);
        }
    }
    // The same server, but no login: nobody else's is borrowed.
    let guest = send("guest@partner.example");
    partner.await_line(&["reject: RCPT", "from=<guest@partner.example>", "Access denied"]);
    // The customer's other mail, rewritten mail included, goes through the customer's gateway.
    let own = send("kim@acme.example");
    assert_eq!(outbound.await_mail(&own).sender, "kim@acme.example");
    let foreign = send("tom@partner.example");
    assert_eq!(outbound.await_mail(&foreign).sender, "postmaster@acme.example");
    // Other customers' goes straight out.
    let mut other = relay.client("198.51.100.9", "mx.globex.example");
    relay.deliver(&mut other, "tom@globex.example", &["you@dest.example"]);

    relay.mta.await_empty_queue();
    assert!(behind_partner.with_id(&guest).is_empty(), "never without a login");
    assert_eq!((behind_partner.all().len(), relay.sink.all().len()), (4, 1));
    relay.daemon.await_counts("kim@acme.example", "messages_per_day", 3, 0);
    relay.daemon.await_counts("lee@acme.example", "messages_per_day", 2, 0);
    let logs = relay.daemon.log() + &relay.mta.log() + &partner.log();
    assert!(!logs.contains("s3cret:_kim") && !logs.contains("secret-lee"), "a password was logged");
}

/// A Postfix that asks by the milter alone gets permission to relay from `clients`, and the next hop from `relayhost`.
#[test]
fn permission_to_relay_and_next_hop_from_tables() {
    let folder = Folder::new();
    let outbound_folder = Folder::new();
    let outbound = Sink::start(&outbound_folder);
    let socket = folder.path().join("relaykeeper/socketmap.sock");
    let map = |name: &str| format!("socketmap:unix:{}:{name}", socket.display());
    let globex = format!("outbound_gateway = \"[127.0.0.1]:{}\"\n{}", outbound.port, crate::customers::GLOBEX);
    let mut relay = Setup::new()
        .main(&format!(
            "[listen]\nsocketmap = [\"unix:{}\"]\n[relay]\nprivate_gateways = [\"127.0.0.0/8\"]",
            socket.display()
        ))
        .customer("globex", &globex)
        .postfix(&format!(
            "smtpd_relay_restrictions = check_client_access {}, reject\ndefault_transport = smtp\n\
             sender_dependent_relayhost_maps = {}\n",
            map("clients"),
            map("relayhost")
        ))
        .start_in(Front::PostfixMilter, folder);
    let mut client = relay.client("198.51.100.9", "mx.globex.example");
    let sent = client.send("tom@globex.example", &["you@dest.example"]);
    assert!(sent.accepted(), "{sent:?}");
    assert_eq!(outbound.await_mail(&sent.id).sender, "tom@globex.example");
    let mut stranger = relay.client("203.0.113.9", "mx.stranger.example");
    let refused = stranger.send("tom@globex.example", &["you@dest.example"]);
    assert!(refused.refusal().is_some_and(|reply| reply.code / 100 == 5), "{refused:?}");
    relay.mta.await_empty_queue();
    assert_eq!(outbound.all().len(), 1);
}

#[test]
fn mail_waits_until_the_password_is_right() {
    let folder = Folder::new();
    let partners_folder = Folder::new();
    let behind_partner = Sink::start(&partners_folder);
    let partner = partner(&folder, &behind_partner);
    password(&folder, "kim", "an old one");
    password(&folder, "lee", "secret-lee");
    let kim = folder.path().join("relaykeeper/customers.d/secrets/kim");
    let mut relay = relay(folder, &acme(partner.port, 9));
    let mut client = relay.client("192.0.2.7", "mx.acme.example");
    let sent = client.send("kim@partner.example", &["you@dest.example"]);
    assert!(sent.accepted(), "{sent:?}");
    relay.mta.await_line(&["status=deferred", "SASL authentication failed"]);
    // A file that others may read is not used either.
    fs::write(&kim, "s3cret:_kim").unwrap();
    fs::set_permissions(&kim, fs::Permissions::from_mode(0o644)).unwrap();
    relay.mta.flush_queue();
    relay.daemon.await_line(&["password_file of the sender kim@partner.example cannot be used: it has mode 0644"]);
    fs::set_permissions(&kim, fs::Permissions::from_mode(0o600)).unwrap();
    relay.mta.flush_queue();
    assert_eq!(behind_partner.await_mail(&sent.id).sender, "kim@partner.example");
    relay.mta.await_empty_queue();
}

/// The filter of DNS replies lets through what may be a gateway, and nothing else.
#[test]
fn documented_filter_of_dns_replies() {
    let folder = Folder::new();
    let (table, main_cf) = (folder.path().join("public_addresses_only"), folder.path().join("main.cf"));
    fs::write(&table, documented("/[[:space:]]A")).unwrap();
    fs::write(&main_cf, "").unwrap();
    let is_ignored = |record: &str| {
        let mut command = Command::new("/usr/sbin/postmap");
        command.arg("-c").arg(folder.path()).args(["-q", &format!("smtp.partner.example. 60 IN {record}")]);
        let output = command.arg(format!("regexp:{}", table.display())).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim() == "IGNORE"
    };
    for inside in ["A 10.0.0.1", "A 127.0.0.1", "A 172.31.0.1", "A 192.168.7.7", "A 169.254.169.254", "A 100.64.0.1"] {
        assert!(is_ignored(inside), "{inside}");
    }
    for inside in ["AAAA ::1", "AAAA fd00::1", "AAAA fe80::1", "AAAA ::ffff:10.0.0.1"] {
        assert!(is_ignored(inside), "{inside}");
    }
    for public in
        ["A 192.0.2.10", "A 172.32.0.1", "A 11.10.127.1", "A 100.128.0.1", "AAAA 2001:db8:fd00::1", "MX 10 a.b"]
    {
        assert!(!is_ignored(public), "{public}");
    }
}

/// Sendmail's socket maps speak the same protocol; as in docs/gateways.md.
#[test]
fn permission_to_relay_from_a_table_for_sendmail() {
    let folder = Folder::new();
    let sink = Sink::start(&folder);
    let socket = folder.path().join("relaykeeper/socketmap.sock");
    let main = format!("[listen]\nsocketmap = [\"unix:{}\"]", socket.display());
    let globex = Front::SendmailMilter.local(crate::customers::GLOBEX);
    let mut daemon = Daemon::configure(folder.path(), &main, &[("globex".to_owned(), globex)]);
    daemon.start();
    let setup = MtaSetup {
        milters: vec![daemon.milter_socket()],
        mc: format!(
            "LOCAL_CONFIG\nKclients socket unix:{}\nLOCAL_RULESETS\nSLocal_check_rcpt\n\
             R$*\t$: $(clients $&{{client_addr}} $: NO $)\nROK\t$# OK\n",
            socket.display()
        ),
        sink_port: sink.port,
        ..MtaSetup::default()
    };
    let mut mta = Mta::sendmail(folder.path(), &setup);
    let connect =
        |from: &str| Client::connect(Some(from.parse().unwrap()), SocketAddr::from((Ipv4Addr::LOCALHOST, mta.port)));
    let mut client = connect("127.51.100.9");
    client.ehlo("mx.globex.example");
    let sent = client.send("tom@globex.example", &["you@dest.example"]);
    assert!(sent.accepted(), "{sent:?}\n{}", mta.log());
    sink.await_mail(&sent.id);
    let mut stranger = connect("127.0.3.9");
    stranger.ehlo("mx.globex.example");
    let refused = stranger.send("tom@globex.example", &["you@dest.example"]);
    assert!(refused.refusal().is_some_and(|reply| reply.text().contains("Relaying denied")), "{refused:?}");
    mta.await_empty_queue();
}
