use super::*;
use crate::orders::TargetKind;

fn order(why: &str) -> Instruction {
    Instruction { by: Actor::Daemon, at: "2026-11-21T14:32:00Z".parse().unwrap(), why: why.to_owned() }
}

fn user(address: &str) -> Subject {
    Subject { kind: SubjectKind::User, customer: "acme".into(), name: address.into() }
}

async fn suspend(administration: &Administration, address: &str, why: &str) -> Option<Arc<Suspension>> {
    administration.suspend(user(address).into(), None, order(why)).await.unwrap().outcome
}

fn suspended(administration: &Administration) -> Option<String> {
    administration.orders().suspended_user("ann@acme.example", order("").at).map(|found| found.why.to_string())
}

#[tokio::test]
async fn a_suspension_survives_a_restart_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Administration::open(folder.path()).unwrap();
    let administration = open();
    assert!(suspend(&administration, "ann@acme.example", "spam").await.is_none());
    assert_eq!(&*suspend(&administration, "ann@acme.example", "worse").await.unwrap().why, "spam");
    assert_eq!(suspended(&open()).as_deref(), Some("worse"));
    open().resume(user("ann@acme.example").into(), order("")).await.unwrap();
    assert_eq!(suspended(&open()), None);
    let error = open().resume(user("ann@acme.example").into(), order("")).await.unwrap_err();
    assert_eq!(error.to_string(), "user ann@acme.example is not suspended");
    assert!(open().problems().is_empty());
}

#[tokio::test]
async fn what_the_audit_log_has_is_carried_out_though_the_state_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Administration::open(folder.path()).unwrap();
    let state = folder.path().join("administration.json");
    suspend(&open(), "bob@acme.example", "spam").await;
    let old = std::fs::read(&state).unwrap();
    suspend(&open(), "ann@acme.example", "spam").await;
    // As if the machine had died between the two files.
    std::fs::write(&state, old).unwrap();
    assert_eq!(suspended(&open()).as_deref(), Some("spam"));
    std::fs::remove_file(&state).unwrap();
    let administration = open();
    assert_eq!(suspended(&administration).as_deref(), Some("spam"));
    assert_eq!(administration.orders().suspensions().len(), 2);
    assert!(administration.problems().is_empty());
}

#[tokio::test]
async fn a_lost_audit_log_forgets_nobody_and_shows() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Administration::open(folder.path()).unwrap();
    suspend(&open(), "ann@acme.example", "spam").await;
    std::fs::remove_file(folder.path().join("audit.log")).unwrap();
    let administration = open();
    assert_eq!(suspended(&administration).as_deref(), Some("spam"));
    let lost = "audit.log: it ends with record 0, but 1 were written: the last ones are missing";
    assert_eq!(administration.problems(), [lost]);
    administration.resume(user("ann@acme.example").into(), order("")).await.unwrap();
    assert_eq!(open().problems(), ["audit.log: line 1: record 1 is missing"]);
}

#[tokio::test]
async fn what_cannot_be_audited_does_not_happen() {
    let folder = tempfile::tempdir().unwrap();
    let administration = Administration::open(folder.path()).unwrap();
    if let Some(files) = &mut *administration.inner.files.lock() {
        files.audit = AuditLog::on_full_disk();
    }
    let error = administration.suspend(user("ann@acme.example").into(), None, order("spam")).await.unwrap_err();
    assert!(matches!(error, OrderError::Audit(_)), "{error}");
    assert!(administration.orders().suspends_nobody());
    assert!(Administration::open(folder.path()).unwrap().orders().suspends_nobody());
}

#[tokio::test]
async fn a_grant_survives_a_restart_until_its_end_or_until_it_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Administration::open(folder.path()).unwrap();
    let limit = LimitName::UserMessages;
    let until = order("").at + SignedDuration::from_hours(1);
    let (ann, bob) = (user("ann@acme.example"), user("bob@acme.example"));
    open().grant(ann.clone(), limit, 5, until, order("fair")).await.unwrap();
    open().grant(bob.clone(), limit, 5, until, order("fair")).await.unwrap();
    open().take_back(ann.clone(), limit, order("")).await.unwrap();
    let error = open().take_back(ann, limit, order("")).await.unwrap_err().to_string();
    assert_eq!(error, "there is no grant of user.messages_per_day to user ann@acme.example");
    std::fs::remove_file(folder.path().join("administration.json")).unwrap();
    let left: Vec<_> = open().orders().grants().iter().map(|grant| grant.subject.clone()).collect();
    assert_eq!(left, [bob], "also from the audit log alone");
    let administration = open();
    administration.end_expired(until - SignedDuration::from_secs(1)).await.unwrap();
    assert_eq!(administration.orders().grants().len(), 1);
    administration.end_expired(until).await.unwrap();
    assert!(!administration.orders().has_grants() && !open().orders().has_grants());
    assert!(open().problems().is_empty());
}

#[tokio::test]
async fn a_suspension_ends_by_itself_also_while_the_daemon_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Administration::open(folder.path()).unwrap();
    let (client, until) =
        (Target::client("192.0.2.0/24".parse().unwrap()), order("").at + SignedDuration::from_hours(1));
    let login = Target { kind: TargetKind::Login, customer: "".into(), name: "kim".into() };
    for (target, until) in [(client.clone(), Some(until)), (login.clone(), None)] {
        open().suspend(target, until, order("spam")).await.unwrap();
    }
    std::fs::remove_file(folder.path().join("administration.json")).unwrap();
    let administration = open();
    let stands = |administration: &Administration, seconds| {
        let address = "192.0.2.7".parse().unwrap();
        administration.orders().suspended_client(address, until + SignedDuration::from_secs(seconds)).is_some()
    };
    assert!(stands(&administration, -1) && !stands(&administration, 0), "also from the audit log alone");
    administration.end_expired(until - SignedDuration::from_secs(1)).await.unwrap();
    assert_eq!(administration.orders().suspensions().len(), 2);
    open().end_expired(until).await.unwrap();
    let left: Vec<_> = open().orders().suspensions().iter().map(|one| one.target.clone()).collect();
    assert_eq!(left, [login]);
    let mut later = order("spam");
    later.at = until;
    let error = open().suspend(client, Some(until), later).await.unwrap_err();
    assert!(matches!(error, OrderError::Over(_)), "{error}");
    assert!(open().problems().is_empty());
}

#[tokio::test]
async fn a_reason_is_required_and_bounded() {
    let administration = Administration::in_memory();
    for (why, expected) in [(" ", "a reason is missing"), (&*"x".repeat(501), "has 501 characters")] {
        let error = administration.suspend(user("ann@acme.example").into(), None, order(why)).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(administration.orders().suspends_nobody());
}
