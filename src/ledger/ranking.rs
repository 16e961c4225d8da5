//! Who is first in a ranking: kept while all accounts are looked at, in bounded memory.

use crate::directory::Subject;
use std::cmp::Ordering;

/// What a subject is ranked by, from what it has used: the larger, the higher.
pub type RankBy<'a> = &'a (dyn Fn(&Subject, u64) -> f64 + Sync);

/// The first of those that were offered.
pub(in crate::ledger) struct Leaders<'a> {
    by: RankBy<'a>,
    most: usize,
    /// The first first.
    leaders: Vec<Leader>,
}

struct Leader {
    rank: f64,
    used: u64,
    subject: Subject,
}

impl<'a> Leaders<'a> {
    pub fn new(most: usize, by: RankBy<'a>) -> Leaders<'a> {
        Leaders { by, most, leaders: Vec::new() }
    }

    /// A subject with what it has used; one that has used nothing, or was offered before, is left out.
    pub fn offer(&mut self, subject: Subject, used: u64) {
        if used == 0 {
            return;
        }
        let rank = (self.by)(&subject, used);
        let place = self.leaders.partition_point(|leader| leader.compare(rank, used) != Ordering::Less);
        if place < self.most && !self.leaders.iter().any(|leader| leader.subject == subject) {
            self.leaders.truncate(self.most - 1);
            self.leaders.insert(place, Leader { rank, used, subject });
        }
    }

    /// With what each has used, the first first.
    pub fn into_ranking(self) -> Vec<(Subject, u64)> {
        self.leaders.into_iter().map(|leader| (leader.subject, leader.used)).collect()
    }
}

impl Leader {
    fn compare(&self, rank: f64, used: u64) -> Ordering {
        self.rank.total_cmp(&rank).then(self.used.cmp(&used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_ranks_are_kept_and_equal_ones_by_use() {
        let subject = |name: &str| Subject::customer(&name.into());
        let by = |subject: &Subject, used: u64| used as f64 / if &*subject.name == "large" { 15_000.0 } else { 3.0 };
        let mut leaders = Leaders::new(3, &by);
        for (name, used) in
            [("large", 10), ("full", 3), ("idle", 0), ("half", 1), ("full", 3), ("larger", 6), ("less", 2)]
        {
            leaders.offer(subject(name), used);
        }
        let ranking = leaders.into_ranking();
        assert_eq!(ranking, [(subject("larger"), 6), (subject("full"), 3), (subject("less"), 2)]);
    }
}
