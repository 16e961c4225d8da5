//! What is over before the end of its message counts for nothing, whatever ended it.

use crate::bed::Folder;
use crate::relay::{Front, Relay, Setup, on};
use crate::smtp::Client;
use crate::standin::Milter;
use std::time::Duration;

/// One message is counted; then a transaction is opened. (The first message also shows that the MTA tells of the end of
/// messages: until then a policy service has to count what is abandoned.)
fn with_open_transaction(relay: &Relay) -> Client {
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    assert_counts(relay, 1, 0);
    client.open("ann@acme.example", "two@dest.example");
    assert_counts(relay, 1, 1);
    client
}

fn assert_counts(relay: &Relay, used: u64, reserved: u64) {
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", used, reserved);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", used, reserved);
}

/// The MTA tells a milter at once. Nothing tells a policy service: the same smtpd's next transaction does, or the time limit.
fn assert_given_back(relay: &mut Relay) {
    if !relay.front.has_milter() {
        relay.daemon.let_pass(Duration::from_secs(601));
    }
    assert_counts(relay, 1, 0);
}

/// Postfix keeps the milter's ABORT in its buffer until it has something to ask, or closes.
fn make_postfix_tell(relay: &Relay, client: &mut Client) {
    if relay.front.has_milter() && !relay.front.is_sendmail() {
        assert!(client.command("MAIL FROM:<bob@acme.example>").accepted());
    }
}

fn assert_given_back_before_the_next(mut relay: Relay, mut client: Client) {
    make_postfix_tell(&relay, &mut client);
    assert_given_back(&mut relay);
    assert!(client.command("RSET").accepted());
    relay.deliver(&mut client, "ann@acme.example", &["two@dest.example"]);
    client.quit();
    assert_counts(&relay, 2, 0);
}

fn rset(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = with_open_transaction(&relay);
    assert!(client.command("RSET").accepted());
    assert_given_back_before_the_next(relay, client);
}
on!(rset: every_front);

fn second_ehlo(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = with_open_transaction(&relay);
    client.ehlo("mail.acme.example");
    assert_given_back_before_the_next(relay, client);
}
on!(second_ehlo: every_front);

/// The next transaction of the same smtpd ends the one before.
fn next_instance_of_the_same_smtpd(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = with_open_transaction(&relay);
    assert!(client.command("RSET").accepted());
    client.open("ann@acme.example", "three@dest.example");
    assert_counts(&relay, 1, 1);
    client.quit();
}
on!(next_instance_of_the_same_smtpd: postfix_policy);

fn quit(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    with_open_transaction(&relay).quit();
    assert_given_back(&mut relay);
}
on!(quit: every_front);

fn lost_connection(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    with_open_transaction(&relay).vanish();
    assert_given_back(&mut relay);
}
on!(lost_connection: every_front);

fn lost_in_the_middle_of_data(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let mut client = with_open_transaction(&relay);
    assert_eq!(client.command("DATA").code, 354);
    client.write("Subject: never finished\r\n\r\nthe line went");
    client.vanish();
    assert_given_back(&mut relay);
}
on!(lost_in_the_middle_of_data: every_front);

fn mta_killed(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let client = with_open_transaction(&relay);
    relay.mta.kill();
    assert_given_back(&mut relay);
    client.vanish();
}
on!(mta_killed: every_front);

/// A client that says nothing more: the MTA's own time limit ends it.
fn silent_client(front: Front) {
    let setup = Setup::with_customers().postfix("smtpd_timeout = 1s\n").sendmail("define(`confTO_COMMAND', `1s')dnl");
    let mut relay = setup.start(front);
    with_open_transaction(&relay).await_end_of_session();
    assert_given_back(&mut relay);
}
on!(silent_client: every_front);

fn data_refused(front: Front) {
    let refuses =
        "smtpd_data_restrictions = check_helo_access inline:{ {nodata.acme.example = REJECT no data today} }\n";
    let ruleset = "LOCAL_RULESETS\nScheck_data\nR$*\t$: < $&s >\nR< nodata.acme.example >\t$#error $@ 5.7.1 $: \"554 no data today\"\ndivert(0)dnl";
    let mut relay = Setup::with_customers().postfix(refuses).sendmail(ruleset).start(front);
    let client = with_open_transaction(&relay);
    client.quit();
    assert_given_back(&mut relay);
    let mut client = relay.client("192.0.2.7", "nodata.acme.example");
    client.open("ann@acme.example", "two@dest.example");
    assert_counts(&relay, 1, 1);
    let refused = client.command("DATA");
    assert!(!refused.accepted() && refused.text().contains("no data today"), "{refused}");
    client.quit();
    assert_given_back(&mut relay);
}
on!(data_refused: every_front);

/// relaykeeper is the last milter, so it hears of what those before it refuse. With both protocols the policy service
/// has then heard of a complete message already; the milter's word counts.
fn refused_at_the_end_by_another_milter(front: Front) {
    let folder = Folder::new();
    let other = Milter::start(folder.path().join("other.sock"));
    let mut relay = Setup::with_customers().after_milter(other.path.clone()).start_in(front, folder);
    let mut client = with_open_transaction(&relay);
    assert!(client.command("RSET").accepted());
    other.refuse(true);
    let sent = client.send("ann@acme.example", &["two@dest.example"]);
    assert_eq!(sent.end.as_ref().expect("got that far").to_string(), "554 5.7.1 refused at the end");
    relay.assert_never_delivered(&sent);
    make_postfix_tell(&relay, &mut client);
    assert_counts(&relay, 1, 0);
    assert!(client.command("RSET").accepted());
    other.refuse(false);
    relay.deliver(&mut client, "ann@acme.example", &["two@dest.example"]);
    client.quit();
    assert_counts(&relay, 2, 0);
}
on!(refused_at_the_end_by_another_milter: postfix_milter, postfix_both, sendmail_milter);

/// A refused recipient holds nothing either.
fn refused_recipient(front: Front) {
    let acme =
        crate::customers::ACME.replace("licenses = 250", "licenses = 250\nlimits.user.unique_recipients_per_day = 2");
    let relay = Setup::with_customers().customer("acme", &acme).start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let sent = client.send("ann@acme.example", &["one@dest.example", "two@dest.example", "three@dest.example"]);
    assert!(sent.delivered() && !sent.recipients[2].accepted(), "{}", client.transcript());
    client.quit();
    relay.daemon.await_counts("ann@acme.example", "unique_recipients_per_day", 2, 0);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 2, 0);
}
on!(refused_recipient: every_front);
