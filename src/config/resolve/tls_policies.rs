//! Automation policies while they are gathered, and their tidying (Caddy's `consolidateAutomationPolicies`).
//!
//! Policies and issuers are shared: a catch-all site writes into the catch-all policy, a site on two listeners has one
//! set of issuers. So both are kept in tables and meant by index.

use std::ops::Deref;

use super::stable_sort::stable_sort_by;
use super::tls_subjects::{is_public_for_policy, matches_wildcard};
use crate::config::tls_types::{AcmeIssuer, AutomationPolicy, Issuer};
use crate::config::types::Module;

pub type PolicyId = usize;
pub type IssuerId = usize;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    pub subjects: Vec<String>,
    pub issuers: Vec<IssuerId>,
    /// Issuers that no global option is filled into.
    pub raw_issuers: Option<Vec<Issuer>>,
    pub managers: Vec<Module>,
    pub renewal_window_ratio: f64,
    pub key_type: String,
    pub on_demand: bool,
    pub disable_ocsp_stapling: bool,
    pub reuse_private_keys: bool,
}

#[derive(Debug, Default)]
pub struct Policies {
    table: Vec<Policy>,
    issuers: Vec<Issuer>,
    /// The policies of the app; one may stand here several times.
    pub order: Vec<PolicyId>,
}

impl Policies {
    pub fn add(&mut self, policy: Policy) -> PolicyId {
        self.table.push(policy);
        self.table.len() - 1
    }

    pub fn add_issuer(&mut self, issuer: Issuer) -> IssuerId {
        self.issuers.push(issuer);
        self.issuers.len() - 1
    }

    #[must_use]
    pub fn policy(&self, id: PolicyId) -> &Policy {
        &self.table[id]
    }

    pub fn get(&mut self, id: PolicyId) -> &mut Policy {
        &mut self.table[id]
    }

    pub fn acme(&mut self, id: IssuerId) -> Option<&mut AcmeIssuer> {
        match &mut self.issuers[id] {
            Issuer::Acme(acme) => Some(acme),
            _ => None,
        }
    }

    /// Equal by value.
    #[must_use]
    pub fn same_issuers(&self, a: &[IssuerId], b: &[IssuerId]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.issuers[*a] == self.issuers[*b])
    }

    #[must_use]
    pub fn has_subject(&self, name: &str) -> bool {
        self.order.iter().any(|id| self.table[*id].subjects.iter().any(|subject| subject == name))
    }

    fn finished(&self, id: PolicyId) -> Candidate {
        let policy = &self.table[id];
        let chosen_by_names = policy.issuers.is_empty();
        let own = || policy.issuers.iter().map(|id| self.issuers[*id].clone()).collect();
        let policy = AutomationPolicy {
            subjects: policy.subjects.clone(),
            issuers: policy.raw_issuers.clone().unwrap_or_else(own),
            get_certificate: policy.managers.clone(),
            renewal_window_ratio: policy.renewal_window_ratio,
            key_type: policy.key_type.clone(),
            on_demand: policy.on_demand,
            disable_ocsp_stapling: policy.disable_ocsp_stapling,
            reuse_private_keys: policy.reuse_private_keys,
            ..AutomationPolicy::default()
        };
        Candidate { policy, chosen_by_names }
    }
}

/// A policy on its way into the app.
#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    policy: AutomationPolicy,
    /// Nobody wrote its issuers; those it may have follow from its names.
    chosen_by_names: bool,
}

impl Deref for Candidate {
    type Target = AutomationPolicy;

    fn deref(&self) -> &AutomationPolicy {
        &self.policy
    }
}

/// The policies of the app, most specific first, without those that say nothing and with equal ones joined.
pub fn consolidate(all: &mut Policies) -> Vec<AutomationPolicy> {
    let mut list: Vec<Candidate> = all.order.iter().map(|id| all.finished(*id)).collect();
    stable_sort_by(&mut list, |a, b| is_subset(a, b) || (!is_subset(b, a) && a.subjects.len() > b.subjects.len()));

    let count = list.len();
    let empty = remove_empty(&mut list);
    if empty == count {
        return Vec::new();
    }
    join_equal(&mut list);
    list.into_iter().map(|candidate| candidate.policy).collect()
}

/// Removes policies that only name their subjects, unless they keep a later policy from taking those. Returns how many
/// there were, kept ones included.
fn remove_empty(list: &mut Vec<Candidate>) -> usize {
    let mut count = 0;
    let mut i = 0;
    while i < list.len() {
        let says_nothing = |policy: &AutomationPolicy| {
            let nothing = AutomationPolicy { subjects: policy.subjects.clone(), ..AutomationPolicy::default() };
            *policy == nothing
        };
        if says_nothing(&list[i]) {
            count += 1;
            // A later policy may ask others for certificates and be shadowed all the same.
            let shadows_nothing = shadowed_by(i, list).is_some_and(|later| {
                says_nothing(&AutomationPolicy { get_certificate: Vec::new(), ..list[later].policy.clone() })
            });
            if i + 1 == list.len() || shadows_nothing {
                list.remove(i);
                continue;
            }
        }
        i += 1;
    }
    count
}

fn join_equal(list: &mut Vec<Candidate>) {
    let mut i = 0;
    'outer: while i < list.len() {
        let mut j = i + 1;
        while j < list.len() {
            if list[i] == list[j] {
                list.remove(j);
                continue 'outer;
            }
            if are_joinable(&list[i], &list[j]) {
                if !list[i].subjects.is_empty() && list[j].subjects.is_empty() {
                    // The catch-all says the same; the special one may go unless another stands between that would then
                    // take its names.
                    if shadowed_by(i, list).is_some_and(|later| later >= j) {
                        list.remove(i);
                        continue 'outer;
                    }
                } else {
                    let other = list.remove(j);
                    let own = &mut list[i].policy.subjects;
                    let new = other.policy.subjects.into_iter().filter(|name| !own.contains(name)).collect::<Vec<_>>();
                    own.extend(new);
                    continue;
                }
            }
            j += 1;
        }
        i += 1;
    }
}

fn are_joinable(a: &Candidate, b: &Candidate) -> bool {
    same_issuers(a, b)
        && a.get_certificate == b.get_certificate
        && a.key_type == b.key_type
        && a.on_demand == b.on_demand
        && a.reuse_private_keys == b.reuse_private_keys
        && a.renewal_window_ratio.to_bits() == b.renewal_window_ratio.to_bits()
}

fn same_issuers(a: &Candidate, b: &Candidate) -> bool {
    if a.issuers != b.issuers {
        return is_internal_by_names(a) && is_internal_by_names(b);
    }
    // Without issuers the names choose them.
    !a.issuers.is_empty()
        || matches!((class_of(a), class_of(b)), (Class::CatchAll, _) | (_, Class::CatchAll))
        || class_of(a) == class_of(b)
}

/// Its names get the internal issuer of themselves, whether the policy says so (as those made for internal names do) or
/// leaves it to automatic HTTPS.
fn is_internal_by_names(candidate: &Candidate) -> bool {
    candidate.chosen_by_names && (!candidate.issuers.is_empty() || class_of(candidate) == Class::Internal)
}

/// Which names a policy is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    CatchAll,
    Public,
    Internal,
    Mixed,
}

fn class_of(policy: &AutomationPolicy) -> Class {
    let public = policy.subjects.iter().filter(|name| is_public_for_policy(name, policy.on_demand)).count();
    match (policy.subjects.len(), public) {
        (0, _) => Class::CatchAll,
        (all, public) if all == public => Class::Public,
        (_, 0) => Class::Internal,
        _ => Class::Mixed,
    }
}

/// Whether `b` is for all names of `a`.
fn is_subset(a: &AutomationPolicy, b: &AutomationPolicy) -> bool {
    if b.subjects.is_empty() {
        return true;
    }
    !a.subjects.is_empty()
        && a.subjects.iter().all(|name| b.subjects.iter().any(|wildcard| matches_wildcard(name, wildcard)))
}

/// The first later policy that would take all names of the one at `i`.
fn shadowed_by(i: usize, list: &[Candidate]) -> Option<usize> {
    (i + 1..list.len()).find(|j| is_subset(&list[i], &list[*j]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(subjects: &[&str], key_type: &str) -> Policy {
        Policy {
            subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
            key_type: key_type.to_owned(),
            ..Policy::default()
        }
    }

    fn consolidated(policies: &[Policy]) -> Vec<(String, String)> {
        let mut all = Policies::default();
        for policy in policies {
            let id = all.add(policy.clone());
            all.order.push(id);
        }
        consolidate(&mut all).into_iter().map(|p| (p.subjects.join(" "), p.key_type)).collect()
    }

    fn rows(rows: &[(&str, &str)]) -> Vec<(String, String)> {
        rows.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn policies_that_say_nothing_go() {
        assert_eq!(consolidated(&[policy(&["a.com"], ""), policy(&["b.com"], "")]), rows(&[]));
        assert_eq!(consolidated(&[policy(&["a.com"], "p384"), policy(&["b.com"], "")]), rows(&[("a.com", "p384")]));
    }

    #[test]
    fn a_policy_that_says_nothing_stays_before_its_wildcard() {
        assert_eq!(
            consolidated(&[policy(&["*.a.com"], "p384"), policy(&["x.a.com"], "")]),
            rows(&[("x.a.com", ""), ("*.a.com", "p384")])
        );
    }

    #[test]
    fn a_written_issuer_is_never_lost_to_one_that_follows_from_names() {
        let mut all = Policies::default();
        let internal = all.add_issuer(Issuer::Internal(crate::config::tls_types::InternalIssuer::default()));
        let implicit = all.add(policy(&["localhost"], ""));
        let written = all.add(Policy { issuers: vec![internal], ..policy(&["a.com"], "") });
        all.order = vec![implicit, written];
        let out = consolidate(&mut all);
        assert_eq!(out.len(), 2);
        assert_eq!((out[1].subjects.len(), out[1].issuers.len()), (1, 1));
    }

    #[test]
    fn equal_policies_are_joined() {
        assert_eq!(
            consolidated(&[policy(&["a.com"], "p384"), policy(&["b.com"], "p384")]),
            rows(&[("a.com b.com", "p384")])
        );
        assert_eq!(consolidated(&[policy(&[], "p384"), policy(&["b.com"], "p384")]), rows(&[("", "p384")]));
    }
}
