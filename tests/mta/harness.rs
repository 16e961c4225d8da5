//! The bed itself, without relaykeeper: when these fail, no other result means anything.

use crate::bed::{Folder, Mta, MtaSetup, eventually};
use crate::sink::Sink;
use crate::smtp::Client;
use crate::standin::{Milter, policy_server};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn setup(folder: &Folder, sink: &Sink, milter: &Milter) -> MtaSetup {
    let policy = folder.path().join("policy.sock");
    policy_server(&policy);
    MtaSetup {
        policy: Some(format!("unix:{}", policy.display())),
        milters: vec![milter.path.clone()],
        access: "Connect:127.0.2 RELAY\nConnect:IPv6:0:0:0:0:0:0:0:1 RELAY".to_owned(),
        logins: vec!["kim@acme.example:secret-kim".to_owned()],
        sink_port: sink.port,
        ..MtaSetup::default()
    }
}

/// Address, HELO, STARTTLS, AUTH, envelope at the sink, a milter's refusal at the end.
fn one_session(client: &mut Client, sink: &Sink, milter: &Milter) {
    client.ehlo("mail.acme.example").starttls().ehlo("mail.acme.example").login("kim@acme.example", "secret-kim");
    let sent = client.send("kim@acme.example", &["one@dest.example", "two@dest.example"]);
    assert!(sent.accepted(), "{}", client.transcript());
    let envelope = sink.await_mail(&sent.id);
    assert_eq!(envelope.sender, "kim@acme.example");
    assert_eq!(envelope.recipients, ["one@dest.example", "two@dest.example"]);
    milter.refuse(true);
    let refused = client.send("kim@acme.example", &["three@dest.example"]);
    assert_eq!(refused.refusal().expect("refused by the milter").to_string(), "554 5.7.1 refused at the end");
    assert!(milter.messages() >= 2);
    milter.refuse(false);
}

#[test]
fn postfix() {
    let folder = Folder::new();
    let (sink, milter) = (Sink::start(&folder), Milter::start(folder.path().join("milter.sock")));
    let mut mta = Mta::postfix(folder.path(), &setup(&folder, &sink, &milter));
    let server = SocketAddr::new(LOCAL, mta.port);
    for address in ["192.0.2.7", "2001:db8::7"] {
        let mut client = Client::connect(None, server);
        client.pretend(address.parse().unwrap());
        one_session(&mut client, &sink, &milter);
        client.quit();
        assert!(
            mta.log()
                .contains(&format!("client=unknown[{address}], sasl_method=PLAIN, sasl_username=kim@acme.example")),
            "{}",
            mta.log()
        );
    }
    mta.await_empty_queue();
    assert_eq!(sink.all().len(), 2);
}

#[test]
fn sendmail() {
    let folder = Folder::new();
    let (sink, milter) = (Sink::start(&folder), Milter::start(folder.path().join("milter.sock")));
    let mut mta = Mta::sendmail(folder.path(), &setup(&folder, &sink, &milter));
    let sources =
        [("127.0.2.7".parse().unwrap(), LOCAL), (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST))];
    for (source, server) in sources {
        let mut client = Client::connect(Some(source), SocketAddr::new(server, mta.port));
        one_session(&mut client, &sink, &milter);
        client.quit();
    }
    mta.await_empty_queue();
    assert_eq!(sink.all().len(), 2);
    assert!(mta.log().contains("authid=kim@acme.example"), "{}", mta.log());
    let mut stranger = Client::connect(Some("127.0.3.7".parse().unwrap()), SocketAddr::new(LOCAL, mta.port));
    stranger.ehlo("mail.acme.example");
    let refused = stranger.send("kim@acme.example", &["one@dest.example"]);
    assert_eq!(refused.refusal().expect("not in the access map").code, 550);
}

/// Each process of an MTA works in its queue folder.
fn processes_in(folder: &Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)))
        .count()
}

#[test]
fn nothing_outlives_its_test() {
    let folder = Folder::new();
    let (sink, milter) = (Sink::start(&folder), Milter::start(folder.path().join("milter.sock")));
    let setup = setup(&folder, &sink, &milter);
    let mtas = [Mta::postfix(folder.path(), &setup), Mta::sendmail(folder.path(), &setup)];
    let mut clients = mtas
        .each_ref()
        .map(|mta| Client::connect(Some("127.0.2.7".parse().unwrap()), SocketAddr::new(LOCAL, mta.port)));
    for client in &mut clients {
        client.ehlo("mail.acme.example").open("kim@acme.example", "one@dest.example");
    }
    assert!(processes_in(folder.path()) >= 4, "daemons and their children");
    drop(mtas);
    eventually("all processes are gone", || (processes_in(folder.path()) == 1).then_some(())); // smtp-sink
    drop(sink);
    eventually("the sink is gone", || (processes_in(folder.path()) == 0).then_some(()));
}
