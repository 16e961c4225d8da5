//! `check`: reads the whole configuration and reports every error at once.

use super::{DONE, NO, print};
use crate::config::{self, Configuration, Problems, how_many};
use std::fmt::Write;
use std::path::Path;

/// Problems go to standard error, the summary to standard output.
pub fn run(config: &Path) -> u8 {
    let (problems, loaded) = config::check(config);
    print::problems(&problems);
    print::line(summary(&problems, loaded.as_ref()));
    if problems.errors() > 0 { NO } else { DONE }
}

fn summary(problems: &Problems, loaded: Option<&Configuration>) -> String {
    if problems.errors() > 0 {
        return problems.summary();
    }
    let mut text = String::from("configuration is good");
    if let Some(loaded) = loaded {
        let customers = loaded.directory.customers();
        let users = loaded.directory.customers().map(|customer| customer.users.len()).sum();
        let domains = loaded.directory.customers().map(|customer| customer.domains.len()).sum();
        let _ = write!(
            text,
            ": {}, {}, {}",
            how_many(customers.len(), "customer"),
            how_many(domains, "domain"),
            how_many(users, "user")
        );
    }
    if problems.warnings() > 0 {
        let _ = write!(text, " ({})", problems.summary());
    }
    text
}
