//! The steps of a decision, for `explain`. Recording them costs nothing when nobody asks.

use serde::Serialize;

/// One step: what was looked at, what came of it, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    pub step: &'static str,
    pub outcome: &'static str,
    pub because: String,
}

/// Collects steps, or does not.
#[derive(Debug, Default)]
pub struct Trace(Option<Vec<Step>>);

impl Trace {
    pub fn off() -> Trace {
        Trace(None)
    }

    pub fn on() -> Trace {
        Trace(Some(Vec::new()))
    }

    /// Whether anybody wants to know: for steps that cost something to find out.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn note(&mut self, step: &'static str, outcome: &'static str, because: impl FnOnce() -> String) {
        if let Some(steps) = &mut self.0 {
            steps.push(Step { step, outcome, because: because() });
        }
    }

    pub fn into_steps(self) -> Vec<Step> {
        self.0.unwrap_or_default()
    }
}
