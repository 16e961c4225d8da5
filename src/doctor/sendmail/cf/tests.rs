use super::*;

/// Lines as Sendmail 8.17's m4 files make them.
const CF: &str = "\
#####  $Id: proto.m4,v 8.762 2013-11-22 20:51:13 ca Exp $  #####
#####  $Id: access_db.m4,v 8.28 2013-11-22 20:51:11 ca Exp $  #####
#####  $Id: mine $  #####
# Djcommented.example
Cwlocalhost
Fw-o /etc/mail/local-host-names %[^\\#]
Djmx.test.example
FR-o /etc/mail/relay-domains
C{R}192.0.2 acme.example
C{TrustAuthMech}PLAIN LOGIN
Kaccess hash -T<TMPF> /etc/mail/access
O DaemonPortOptions=Family=inet, Addr=127.0.0.1, Port=smtp, Name=MTA
O DaemonPortOptions=Port=587, Name=MSA, M=Ea
O DaemonPortOptions=Port=2527, Name=X, InputMailFilters=raw,relaykeeper
O DaemonPortOptions=Port=2528, InputMailFilters=spam;relaykeeper,
 M=b
O DaemonPortOptions=Port=2529, Name=Z, InputMailFilters=
O AuthOptions=A p y
O InputMailFilters=spam, relaykeeper
Xspam, S=local:/run/spam.sock
Xrelaykeeper, S=local:/run/relaykeeper/milter.sock, F=T, T=C:1m;S:30s;R:2h;E:x
Xbad, S=inet:8891@localhost, F=T, T=C:1m,S:30s, G=7
Scheck_rcpt
R$*\t\t\t$: $1 $| $>\"Local_check_rcpt\" $1
SBasic_check_rcpt
R$* $| @ $*\t\t$: O $| $>\"Relay_ok\" $1
";

#[test]
fn what_the_m4_files_make_is_read() {
    let cf = SendmailCf::parse(CF);
    assert_eq!((cf.value("AuthOptions"), cf.value("authoptions"), cf.value("ServerCertFile")), ("A p y", "A p y", ""));
    assert_eq!(cf.macro_value("j"), Some("mx.test.example"));
    assert_eq!(cf.class("R").unwrap().words, ["192.0.2", "acme.example"]);
    assert_eq!(cf.class("R").unwrap().files, [PathBuf::from("/etc/mail/relay-domains")]);
    assert_eq!(cf.class("w").unwrap().files, [PathBuf::from("/etc/mail/local-host-names")]);
    assert_eq!(cf.class("TrustAuthMech").unwrap().words, ["PLAIN", "LOGIN"]);
    assert_eq!(cf.map("access"), Some((11, "hash -T<TMPF> /etc/mail/access")));
    assert_eq!(
        (cf.feature("access_db"), cf.feature("promiscuous_relay"), cf.feature("mine $  #####")),
        (Some(2), None, None)
    );
    assert!(cf.has_rules && cf.asks_relay_ok);
    assert_eq!(cf.default_filters(), ["spam", "relaykeeper"]);
}

#[test]
fn services_and_their_filters() {
    let cf = SendmailCf::parse(CF);
    let daemons = cf.daemons();
    let titles: Vec<_> = daemons.iter().map(Daemon::title).collect();
    assert_eq!(titles, ["Name=MTA", "Name=MSA", "Name=X", "Port=2528", "Name=Z"]);
    let filters: Vec<_> = daemons.iter().map(|daemon| cf.filters_of(daemon)).collect();
    assert_eq!(filters[0], ["spam", "relaykeeper"]);
    assert_eq!(
        (filters[2].clone(), daemons[2].cut_off.clone()),
        (vec!["raw".to_owned()], vec!["relaykeeper".to_owned()])
    );
    assert_eq!((&*filters[3], &*daemons[3].modifiers), (&["spam".to_owned(), "relaykeeper".to_owned()][..], "b"));
    assert!(filters[4].is_empty());
    assert_eq!((&*daemons[0].address, &*daemons[0].port, &*daemons[0].family), ("127.0.0.1", "smtp", "inet"));
    assert_eq!(SendmailCf::parse("").daemons()[0].title(), "port 25");
}

#[test]
fn filters_and_what_is_wrong_with_them() {
    let cf = SendmailCf::parse(CF);
    let ours = cf.filter("relaykeeper").unwrap();
    assert_eq!((&*ours.socket, &*ours.flags), ("local:/run/relaykeeper/milter.sock", "T"));
    let times: Vec<_> = ['C', 'S', 'R', 'E', 'X'].map(|letter| ours.seconds(letter)).into();
    assert_eq!(times, [Some(60), Some(30), Some(7_200), None, None]);
    assert!(ours.malformed.is_empty());
    assert_eq!(cf.filter("bad").unwrap().malformed, ["S:30s", "G=7"]);
    assert_eq!(cf.filter("none"), None);
}

#[test]
fn anything_is_read_without_a_panic() {
    for text in
        ["", "O", "O ", "X", "X,", "D", "D{", "C{R", "F", "K", "S", "R", "O =", "O DaemonPortOptions=,,=,", " x", "Dü"]
    {
        let cf = SendmailCf::parse(text);
        let _ = (cf.daemons(), cf.default_filters());
    }
}
