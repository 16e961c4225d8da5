//! Runs a case one way, and tells what is not as expected.

use crate::common::installation::{Installation, Running};
use crate::common::rehearsal::{rehearse, reply_of, without_reference};
use crate::common::smtpd::internal_form;
use crate::data::{End, RuleFile, Step, duration};
use crate::ways::{Inside, Open, Reply, Road, Way, envelope_of, size_of};
use relaykeeper::session::{Rehearsal, Via};
use std::collections::BTreeMap;

pub async fn run_case(file: &RuleFile, installation: &Installation, case: &Step, way: Way) -> Vec<String> {
    let running = match case.store_is_unreadable {
        Some(true) => installation.run_with_unreadable_store().await,
        _ => installation.run(),
    };
    let mut runner = Runner { way, running: &running, open: BTreeMap::new(), wrong: Vec::new() };
    let mut road = Road::open(way, &running).await;
    let case = case.over(&file.defaults);
    match &case.script {
        None => runner.step(&mut road, &case).await,
        Some(script) => {
            for (n, step) in script.iter().enumerate() {
                let before = runner.wrong.len();
                runner.step(&mut road, &step.over(&case)).await;
                for wrong in &mut runner.wrong[before..] {
                    *wrong = format!("step {}: {wrong}", n + 1);
                }
            }
        }
    }
    runner.wrong
}

struct Runner<'r> {
    way: Way,
    running: &'r Running,
    open: BTreeMap<String, Open<'r>>,
    wrong: Vec<String>,
}

impl<'r> Runner<'r> {
    async fn step(&mut self, road: &mut Road<'r>, step: &Step) {
        if let Some(wait) = &step.wait {
            self.running.pass_time(duration(wait));
        }
        if let Some(name) = &step.suspend {
            self.running.suspend(name, "spam <complaints>, 100%").await;
        }
        if let Some(name) = &step.resume {
            self.running.resume(name).await;
        }
        if let Some(grant) = &step.grant {
            let words: Vec<&str> = grant.split(' ').collect();
            self.running
                .grant(words[0], words[1].parse().unwrap(), words[2].parse().unwrap(), duration(words[3]))
                .await;
        }
        if let Some(address) = &step.spam_of {
            self.running.mark_as_spammer(address);
        }
        if let Some(address) = &step.own_mail_to {
            self.running.hand_over_own_mail_to(address);
        }
        let left_open = step.called.as_ref().and_then(|name| self.open.remove(name));
        match left_open {
            Some(open) => self.finish(open, step).await,
            None if step.is_transaction() => self.transactions(road, step).await,
            None => {}
        }
        self.check_usage(step).await;
    }

    async fn transactions(&mut self, road: &mut Road<'r>, step: &Step) {
        let mut logged = self.logged(step);
        let mut others = Vec::new();
        for _ in 0..step.sessions_open.unwrap_or(0) {
            others.push(road.connect(step).await);
        }
        for _ in 0..step.sessions_before.unwrap_or(0) {
            road.connect(step).await.close().await;
        }
        let mut open = road.connect(step).await;
        for repetition in 1..=step.times.unwrap_or(1) {
            let recipients = step.recipients(repetition);
            if repetition > 1 {
                logged = self.logged(step);
            }
            let via = self.way.via();
            let as_passed: Vec<String> = match via {
                Via::Policy => recipients.iter().map(|recipient| internal_form(recipient)).collect(),
                Via::Milter | Via::Both => recipients.clone(),
            };
            let rehearsal = rehearse(self.running, &envelope_of(step, via), &as_passed, size_of(step), via).await;
            let told = open.begin(step, &recipients, &rehearsal).await;
            // A session that is refused never comes to MAIL.
            let rehearsal = (!open.is_refused()).then_some(rehearsal);
            if let Some(rehearsal) = &rehearsal {
                for ((recipient, told), rehearsed) in recipients.iter().zip(&told).zip(&rehearsal.recipients) {
                    self.check_explained(&format!("recipient {recipient}"), told, reply_of(&rehearsed.verdict));
                }
            }
            let expected = step.expectations(self.way, recipients.len());
            for (recipient, (told, expected)) in recipients.iter().zip(told.iter().zip(&expected)) {
                self.check_reply(&format!("recipient {recipient}"), told, expected);
            }
            let decisive = told.iter().flatten().next();
            for says in step.says.iter().flat_map(|says| says.iter()) {
                if !decisive.is_some_and(|reply| reply.contains(says)) {
                    self.wrong.push(format!("nothing says \"{says}\": {decisive:?}"));
                }
            }
            let is_refused = told.iter().all(Option::is_some);
            let as_elsewhere = step.expected_instead(self.way).is_none();
            match step.end.unwrap_or(End::Sent) {
                End::Open => {
                    let name = step.called.clone().expect("an open transaction needs a name");
                    self.open.insert(name, open);
                    return;
                }
                End::Sent if !is_refused => self.end(&mut open, step, rehearsal.as_ref()).await,
                _ => open.give_up().await,
            }
            if as_elsewhere {
                self.check_inside(&open, step, logged);
            }
        }
        open.close().await;
        for other in others {
            other.close().await;
        }
    }

    async fn finish(&mut self, mut open: Open<'r>, step: &Step) {
        match step.end.unwrap_or(End::Sent) {
            End::Sent => self.end(&mut open, step, None).await,
            End::GivenUp => open.give_up().await,
            End::Open => panic!("it is open already"),
        }
        open.close().await;
    }

    /// `rehearsal`: unless something happened since it was made.
    async fn end(&mut self, open: &mut Open<'r>, step: &Step, rehearsal: Option<&Rehearsal>) {
        let (told, senders) = open.end(step).await;
        if let Some(end) = rehearsal.and_then(|rehearsal| rehearsal.end.as_ref()) {
            self.check_explained("the end of the message", &told, reply_of(&end.verdict));
            let explained: Vec<String> = end.verdict.rewrite_sender_to.iter().map(ToString::to_string).collect();
            if told.is_none() && senders != explained {
                self.wrong.push(format!("the sender is changed to {senders:?}, and explain says {explained:?}"));
            }
        }
        let over_policy = step.at_end_over_policy.as_ref().filter(|_| self.way == Way::Policy);
        let expected = over_policy.or(step.at_end.as_ref()).map_or("accept", String::as_str);
        self.check_reply("the end of the message", &told, expected);
        if self.way != Way::Policy && told.is_none() && step.expected_instead(self.way).is_none() {
            let expected: Vec<&str> = step.rewrite.as_deref().into_iter().filter(|new| !new.is_empty()).collect();
            if senders != expected {
                self.wrong.push(format!("the sender is changed to {senders:?}, not {expected:?}"));
            }
        }
    }

    fn check_explained(&mut self, what: &str, told: &Reply, explained: Reply) {
        let told = told.as_deref().map(without_reference);
        if told != explained.as_deref() {
            self.wrong.push(format!("{what}: came {told:?}, and explain says {explained:?}"));
        }
    }

    fn check_reply(&mut self, what: &str, told: &Reply, expected: &str) {
        let (word, begin) = expected.split_once(' ').unwrap_or((expected, ""));
        let (is_word, reply) = match told.as_deref() {
            None => ("accept", ""),
            Some(reply) if reply.starts_with('4') => ("defer", reply),
            Some(reply) => ("reject", reply),
        };
        if is_word != word || !reply.starts_with(begin) {
            self.wrong.push(format!("{what}: expected \"{expected}\", came \"{is_word} {reply}\""));
        }
        if let Some(reply) = told {
            self.check_form(reply);
        }
    }

    /// What holds for every reply: code and enhanced code of one class, the reference at the end, 512 octets
    /// (RFC 5321, 4.5.3.1.5) of printable ASCII.
    fn check_form(&mut self, reply: &str) {
        let mut wrong = |what: &str| self.wrong.push(format!("{what}: {reply}"));
        if reply.len() + "\r\n".len() > 512 {
            wrong("longer than 512 octets");
        }
        if !reply.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            wrong("not of printable ASCII");
        }
        let is_code = reply.len() > 10 && reply[..3].bytes().all(|byte| byte.is_ascii_digit());
        if !is_code || reply.as_bytes()[0] != reply.as_bytes()[4] || reply.as_bytes()[5] != b'.' {
            wrong("no code and enhanced code of one class");
        }
        let reference = reply.rsplit_once(" [").and_then(|(_, end)| end.strip_suffix(']'));
        if !reference.is_some_and(|reference| {
            reference.len() >= 10 && reference.parse::<relaykeeper::report::Reference>().is_ok()
        }) {
            wrong("no reference at the end");
        }
    }

    fn logged(&self, step: &Step) -> usize {
        if self.looks_inside(step) && self.way != Way::Decision { self.running.log_lines().len() } else { 0 }
    }

    fn looks_inside(&self, step: &Step) -> bool {
        let fields = [&step.reason, &step.customer, &step.by, &step.setting, &step.user, &step.rewrite, &step.shadow];
        fields.iter().any(|field| field.is_some())
    }

    fn check_inside(&mut self, open: &Open<'r>, step: &Step, logged: usize) {
        let from_log;
        let inside = match open.inside() {
            Some(inside) => {
                self.check_steps(step, inside);
                inside
            }
            None if !self.looks_inside(step) => return,
            None => {
                let lines = self.running.log_lines();
                let Some(inside) = Inside::of_log(&lines[logged..]) else {
                    return self.wrong.push(format!("no line in the log: {:?}", &lines[logged..]));
                };
                from_log = inside;
                &from_log
            }
        };
        let expected = [
            ("reason", &step.reason, &inside.reason),
            ("customer", &step.customer, &inside.customer),
            ("by", &step.by, &inside.by),
            ("setting", &step.setting, &inside.setting),
            ("user", &step.user, &inside.user),
            ("rewrite", &step.rewrite, &inside.rewrite),
            ("shadow", &step.shadow, &inside.shadow),
        ];
        for (name, expected, found) in expected {
            let Some(expected) = expected else { continue };
            if found.as_deref().unwrap_or("") != expected {
                self.wrong.push(format!("{name}: expected \"{expected}\", is {found:?}"));
            }
        }
    }

    fn check_steps(&mut self, step: &Step, inside: &Inside) {
        let mut left = inside.steps.iter();
        for expected in step.steps.iter().flatten() {
            if !left.any(|found| found == expected) {
                return self.wrong.push(format!("no step \"{expected}\" at its place in {:?}", inside.steps));
            }
        }
    }

    async fn check_usage(&mut self, step: &Step) {
        let over_policy = step.used_over_policy.as_ref().filter(|_| self.way == Way::Policy);
        let wanted =
            over_policy.or(step.used.as_ref()).into_iter().flatten().map(|(name, limits)| (name, limits, true));
        let wanted = wanted.chain(step.reserved.iter().flatten().map(|(name, limits)| (name, limits, false)));
        for (name, limits, used) in wanted {
            let usage = self.running.usage(name).await;
            for (limit, expected) in limits {
                let Some(found) = usage.iter().find(|usage| usage.limit.key() == limit) else {
                    self.wrong.push(format!("{name} has no limit {limit}"));
                    continue;
                };
                let (what, found) = if used { ("used", found.used) } else { ("reserved", found.reserved) };
                if found != *expected {
                    self.wrong.push(format!("{what} of {name}, {limit}: expected {expected}, is {found}"));
                }
            }
        }
    }
}
