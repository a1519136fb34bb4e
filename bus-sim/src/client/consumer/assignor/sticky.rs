//! The sticky assignor: balanced, moving as little as can be (KIP-54), as librdkafka has it, down
//! to which partition moves.
//!
//! 1. Who owns what is read from the claims of the members, the newer generation first.
//! 2. Partitions are put in the order in which they are considered: where all members have
//!    subscribed alike, those of the most loaded member in turn, then those that nobody owns from
//!    the last to the first; else those first that the fewest could have.
//! 3. What nobody owns goes to the least loaded member that may have it.
//! 4. As long as it is not balanced, partitions are considered in that order, and move to the least
//!    loaded member that may have them if their owner has at least two more than another. If the
//!    whole gets no more even by it, all stays.
//!
//! Absent: racks (KIP-881).

use std::collections::{BTreeMap, BTreeSet};

use bus_core::{Partition, Topic, TopicPartition};

use crate::node::Name;

use super::{Assignment, Claims, Member, all, is_subscribed};

/// Divides the partitions of the topics among the members.
pub(super) fn assign(
    members: &[&Member],
    partitions: &BTreeMap<Topic, Partition>,
    claims: Claims,
    assignment: &mut Assignment,
) {
    let potential = members.iter().map(|member| {
        let mine = all(partitions).into_iter().filter(|at| is_subscribed(member, &at.topic));
        (member.member_id.clone(), mine.collect())
    });
    let mut sticky = Sticky {
        potential: potential.collect(),
        mine: members.iter().map(|member| (member.member_id.clone(), Vec::new())).collect(),
        previous: BTreeMap::new(),
        moves: Vec::new(),
    };
    let needs_revocation = sticky.take_claims(members, partitions, claims);
    sticky.divide(needs_revocation);
    *assignment = sticky.mine;
}

/// Who owns a partition by the claims of the members, and who did before.
///
/// Sorted by their generations; without those of equal ones, unless members are trusted.
fn claims(members: &[&Member], which: Claims) -> BTreeMap<TopicPartition, Vec<(i32, Name)>> {
    let mut claims = BTreeMap::<TopicPartition, Vec<(i32, Name)>>::new();
    for member in members {
        for at in &member.subscription.owned {
            let claim = (member.subscription.generation, member.member_id.clone());
            claims.entry(at.clone()).or_default().push(claim);
        }
    }
    claims.retain(|_, claims| {
        claims.sort_by_key(|(generation, _)| *generation);
        which == Claims::Trusted || !claims.windows(2).any(|pair| pair[0].0 == pair[1].0)
    });
    claims
}

/// The owners of each partition, by the claims of the members: one, unless members are trusted.
pub(super) fn owners(members: &[&Member], which: Claims) -> BTreeMap<TopicPartition, Vec<Name>> {
    let owners = |(at, claims): (TopicPartition, Vec<(i32, Name)>)| {
        let skipped = if which == Claims::Trusted { 0 } else { claims.len() - 1 };
        (at, claims.into_iter().skip(skipped).map(|(_, member)| member).collect())
    };
    claims(members, which).into_iter().map(owners).collect()
}

struct Sticky {
    /// What each member may have.
    potential: BTreeMap<Name, BTreeSet<TopicPartition>>,
    /// What each member has.
    mine: Assignment,
    /// Who had a partition one claim before.
    previous: BTreeMap<TopicPartition, Name>,
    /// From whom and to whom partitions have moved, in the order of the moves.
    moves: Vec<(TopicPartition, (Name, Name))>,
}

impl Sticky {
    /// Takes over what the members claim and may still have; tells whether a member must give up
    /// what it has not subscribed to any more.
    fn take_claims(
        &mut self,
        members: &[&Member],
        partitions: &BTreeMap<Topic, Partition>,
        which: Claims,
    ) -> bool {
        let mut needs_revocation = false;
        for (at, claims) in claims(members, which) {
            let exists = partitions.get(&at.topic).is_some_and(|count| at.partition < *count);
            if claims.len() > 1 && which == Claims::Dated {
                self.previous.insert(at.clone(), claims[claims.len() - 2].1.clone());
            }
            let skipped = if which == Claims::Trusted { 0 } else { claims.len() - 1 };
            for (_, owner) in claims.into_iter().skip(skipped) {
                if self.may_have(&owner, &at) {
                    self.mine.entry(owner).or_default().push(at.clone());
                } else {
                    needs_revocation |= exists;
                }
            }
        }
        needs_revocation
    }

    fn divide(&mut self, needs_revocation: bool) {
        let order = self.order();
        let owned = self.mine.values().flatten().cloned().collect::<BTreeSet<_>>();
        let is_new = self.mine.values().all(Vec::is_empty);
        let mut free: Vec<_> = order.iter().filter(|at| !owned.contains(*at)).cloned().collect();
        for at in &free {
            if let Some(member) = self.least_loaded(at) {
                self.mine.entry(member).or_default().push(at.clone());
            }
        }
        // What only one may have cannot move.
        let can_move = |at: &TopicPartition| {
            self.potential.values().filter(|may_have| may_have.contains(at)).count() > 1
        };
        let movable: Vec<_> = order.into_iter().filter(|at| can_move(at)).collect();
        free.retain(can_move);
        let before = self.mine.clone();
        if !needs_revocation && !free.is_empty() {
            self.even_out(&free);
        }
        let has_moved = self.even_out(&movable);
        if !is_new && has_moved && unevenness(&self.mine) >= unevenness(&before) {
            self.mine = before;
        }
    }

    /// The order in which partitions are considered.
    fn order(&self) -> Vec<TopicPartition> {
        let all = self.potential.values().flatten().cloned().collect::<BTreeSet<_>>();
        let mut all = all.into_iter().collect::<Vec<_>>();
        let mut wishes = self.potential.values();
        let first = wishes.next();
        if wishes.any(|wish| Some(wish) != first) {
            // The sort is stable, so equal ones stay in their order.
            all.sort_by_key(|at| self.potential.values().filter(|may| may.contains(at)).count());
            return all;
        }
        let mut left = self.mine.clone();
        left.values_mut().for_each(|mine| mine.sort());
        let mut order = Vec::with_capacity(all.len());
        while let Some((_, mine)) =
            left.iter_mut().filter(|(_, mine)| !mine.is_empty()).max_by_key(|(_, m)| m.len())
        {
            // One that has moved before is rather moved again.
            let moved = mine.iter().position(|at| self.previous.contains_key(at));
            order.push(mine.remove(moved.unwrap_or(0)));
        }
        // librdkafka keeps the others in a table that gives the youngest entry first, and sorts
        // them only if there is nothing else.
        if !order.is_empty() {
            all.reverse();
        }
        all.retain(|at| !order.contains(at));
        order.extend(all);
        order
    }

    /// Moves partitions, in this order, as long as it is not balanced. Tells whether any moved.
    fn even_out(&mut self, order: &[TopicPartition]) -> bool {
        let mut has_moved = false;
        loop {
            let mut moves_now = false;
            for at in order {
                if self.is_balanced() {
                    break;
                }
                moves_now |= self.consider(at);
            }
            has_moved |= moves_now;
            if !moves_now {
                return has_moved;
            }
        }
    }

    /// Moves a partition if its owner has at least two more than another that may have it.
    fn consider(&mut self, at: &TopicPartition) -> bool {
        let owner = self.mine.iter().find(|(_, mine)| mine.contains(at));
        let Some((owner, load)) = owner.map(|(owner, mine)| (owner.clone(), mine.len())) else {
            return false;
        };
        let previous = self.previous.get(at).filter(|member| self.mine.contains_key(*member));
        if let Some(previous) = previous.filter(|previous| load > self.load(previous) + 1) {
            let previous = previous.clone();
            self.reassign(at, &owner, previous);
            return true;
        }
        let is_better = self.potential.iter().any(|(other, may_have)| {
            *other != owner && may_have.contains(at) && load > self.load(other) + 1
        });
        let to = self.least_loaded(at).filter(|_| is_better);
        to.is_some_and(|to| {
            self.reassign(at, &owner, to);
            true
        })
    }

    /// Moves a partition, or in its place one of the same topic that has gone the other way.
    fn reassign(&mut self, at: &TopicPartition, from: &Name, to: Name) {
        let moved = self.moves.iter().find(|(other, _)| other == at);
        let source = moved.map_or(from, |(_, (source, _))| source);
        let is_back = |other: &TopicPartition, way: &(Name, Name)| {
            other.topic == at.topic && way.0 == to && way.1 == *source
        };
        let back = self.moves.iter().find(|(other, way)| is_back(other, way));
        let at = back.map_or(at, |(other, _)| other).clone();
        let Some(from) = self.mine.iter().find(|(_, mine)| mine.contains(&at)) else { return };
        let from = from.0.clone();
        let moved = self.moves.iter().position(|(other, _)| *other == at);
        let source = moved.map_or_else(|| from.clone(), |n| self.moves.remove(n).1.0);
        if source != to {
            self.moves.push((at.clone(), (source, to.clone())));
        }
        if let Some(mine) = self.mine.get_mut(&from) {
            mine.retain(|other| *other != at);
        }
        self.mine.entry(to).or_default().push(at);
    }

    /// Whether no member could have a partition of another that has more.
    fn is_balanced(&self) -> bool {
        let loads = || self.mine.values().map(Vec::len);
        if loads().max() <= loads().min().map(|least| least + 1) {
            return true;
        }
        self.potential.iter().all(|(member, may_have)| {
            let load = self.load(member);
            may_have.iter().all(|at| {
                let owner = self.mine.values().find(|mine| mine.contains(at));
                owner.is_none_or(|owner| owner.len() <= load)
            })
        })
    }

    fn may_have(&self, member: &Name, at: &TopicPartition) -> bool {
        self.potential.get(member).is_some_and(|may_have| may_have.contains(at))
    }

    fn load(&self, member: &Name) -> usize {
        self.mine.get(member).map_or(0, Vec::len)
    }

    /// Of equally loaded members the one with the lowest id.
    fn least_loaded(&self, at: &TopicPartition) -> Option<Name> {
        let may_have = self.potential.iter().filter(|(_, may_have)| may_have.contains(at));
        may_have.map(|(member, _)| member).min_by_key(|member| self.load(member)).cloned()
    }
}

/// The sum of the differences of all pairs.
fn unevenness(assignment: &Assignment) -> usize {
    let loads = assignment.values().map(Vec::len).collect::<Vec<_>>();
    let others = |n: usize| loads[n + 1..].iter();
    (0..loads.len())
        .flat_map(|n| others(n).map(move |o| (n, o)))
        .map(|(n, o)| loads[n].abs_diff(*o))
        .sum()
}
