//! The rules as data: each case of `rules/*.toml` goes through the decision itself and through every protocol, must come to the
//! same, and must be what `explain` said before. A new case is a few lines in one of these files; `data.rs` tells what may stand there.
//!
//! `SCENARIO=text cargo test --test scenarios` runs only the cases whose file or name holds the text.

#[path = "../common/mod.rs"]
mod common;
mod data;
mod run;
mod ways;

use common::installation::Installation;
use common::mta::Kind;
use data::{RuleFile, Step};
use relaykeeper::config::Severity;
use ways::Way;

#[tokio::test]
async fn by_the_decision_itself() {
    run_all(Way::Decision).await;
}

#[tokio::test]
async fn over_the_milter_protocol_of_postfix() {
    run_all(Way::Milter(Kind::Postfix)).await;
}

#[tokio::test]
async fn over_the_milter_protocol_of_sendmail() {
    run_all(Way::Milter(Kind::Sendmail)).await;
}

#[tokio::test]
async fn over_both_protocols_of_postfix() {
    run_all(Way::Both).await;
}

#[tokio::test]
async fn over_the_policy_protocol() {
    run_all(Way::Policy).await;
}

async fn run_all(way: Way) {
    let wanted = std::env::var("SCENARIO").unwrap_or_default();
    let (mut cases, mut wrong) = (0, Vec::new());
    for (file_name, file) in RuleFile::read_all(&std::path::Path::new(file!()).with_file_name("rules")) {
        let texts = file.customer_files();
        let install = |case: &Step| {
            let customers = texts.iter().map(|(name, text)| (name.as_str(), text.as_str()));
            Installation::of(&file.main_text(case), customers)
        };
        let installation = install(&Step::default());
        let problems = installation.loaded.problems.iter().filter(|problem| problem.severity == Severity::Error);
        let problems: Vec<String> = problems.map(|problem| problem.to_string()).collect();
        assert!(problems.is_empty() || !file.files.is_empty(), "{file_name}: {}", problems.join("\n"));
        for case in &file.case {
            let name = case.name.as_deref().expect("a case needs a name");
            if !file_name.contains(&wanted) && !name.contains(&wanted) {
                continue;
            }
            cases += 1;
            let own = case.has_own_configuration().then(|| install(case));
            let found = run::run_case(&file, own.as_ref().unwrap_or(&installation), case, way).await;
            wrong.extend(found.into_iter().map(|what| format!("{file_name}: {name}: {what}")));
        }
    }
    assert!(cases > 0, "there is no such case");
    assert!(wrong.is_empty(), "{} of {cases} cases, {way:?}:\n{}", wrong.len(), wrong.join("\n"));
}
