//! TLS connection policies of a server: those of its sites, tidied (Caddy's `consolidateConnPolicies`).

use serde_json::{Map, Value, json};

/// A policy object; an empty map changes nothing and only turns TLS on.
pub type Policy = Map<String, Value>;

/// Fields that two policies with the same matchers must agree on, and their names for the message.
const MERGED: [(&str, &str); 8] = [
    ("alpn", "ALPN protocols"),
    ("cipher_suites", "cipher suites"),
    ("client_authentication", "client authentication"),
    ("curves", "curves"),
    ("default_sni", "default SNI"),
    ("fallback_sni", "fallback SNI"),
    ("protocol_min", "lowest protocol"),
    ("protocol_max", "highest protocol"),
];

/// The policy with an `sni` matcher for `hosts`; none when there are no hosts.
pub fn match_hosts(policy: &mut Policy, hosts: &[String]) {
    if !hosts.is_empty() {
        policy.insert("match".to_owned(), json!({ "sni": hosts }));
    }
}

/// Whether the policy says nothing but whom it is for.
#[must_use]
pub fn settings_empty(policy: &Policy) -> bool {
    policy.keys().all(|key| key == "match")
}

/// Puts policies without a matcher last, drops equal ones and merges what can be merged. `Err` is the sentence for the
/// diagnostic.
pub fn consolidate(policies: Vec<Policy>) -> Result<Vec<Policy>, String> {
    let (mut list, catch_all): (Vec<Policy>, Vec<Policy>) =
        policies.into_iter().partition(|policy| policy.contains_key("match"));
    list.extend(catch_all);

    let mut i = 0;
    while i < list.len() {
        // When another policy was joined to this one, the place is looked at again.
        if !join_another(&mut list, i)? {
            i += 1;
        }
    }
    Ok(list)
}

/// Joins one other policy to the one at `i` and takes it out of the list; false when none fits.
fn join_another(list: &mut Vec<Policy>, i: usize) -> Result<bool, String> {
    for j in 0..list.len() {
        if j == i {
            continue;
        }
        if list[i] == list[j] {
            list.remove(j);
            return Ok(true);
        }
        if j == i + 1
            && let Some(hosts) = joint_hosts(&list[i], &list[j])
        {
            list[i].insert("match".to_owned(), json!({ "sni": hosts }));
            list.remove(j);
            return Ok(true);
        }
        if list[i].get("match") == list[j].get("match") {
            let other = list[j].clone();
            merge(&mut list[i], other)?;
            list.remove(j);
            return Ok(true);
        }
    }
    Ok(false)
}

/// The hosts of two neighbours that differ in their `sni` matcher alone.
fn joint_hosts(a: &Policy, b: &Policy) -> Option<Vec<Value>> {
    let hosts = |policy: &Policy| match policy.get("match")?.as_object() {
        Some(matchers) if matchers.len() == 1 => matchers.get("sni")?.as_array().cloned(),
        _ => None,
    };
    let settings = |policy: &Policy| {
        let mut settings = policy.clone();
        settings.remove("match");
        settings
    };
    let (mut joint, more) = (hosts(a)?, hosts(b)?);
    if settings(a) != settings(b) {
        return None;
    }
    joint.extend(more);
    Some(joint)
}

fn merge(into: &mut Policy, from: Policy) -> Result<(), String> {
    for (field, name) in MERGED {
        match (into.get(field), from.get(field)) {
            (Some(a), Some(b)) if a != b && field != "client_authentication" => {
                return Err(format!("two TLS policies for the same hosts differ in their {name}"));
            }
            (None, Some(_)) if field == "client_authentication" => {
                return Err(format!("two TLS policies for the same hosts differ in their {name}"));
            }
            _ => {}
        }
    }
    let tags = merged_selection(into.get("certificate_selection"), from.get("certificate_selection"))?;
    for (field, _) in MERGED {
        if !into.contains_key(field)
            && let Some(value) = from.get(field)
        {
            into.insert(field.to_owned(), value.clone());
        }
    }
    if let Some(selection) = tags {
        into.insert("certificate_selection".to_owned(), selection);
    }
    Ok(())
}

/// Certificate selections join by their `any_tag`; all else must be equal.
fn merged_selection(a: Option<&Value>, b: Option<&Value>) -> Result<Option<Value>, String> {
    let (Some(a), Some(b)) = (a.and_then(Value::as_object), b.and_then(Value::as_object)) else {
        return Ok(a.or(b).cloned());
    };
    let rest = |selection: &Policy| {
        let mut rest = selection.clone();
        rest.remove("any_tag");
        rest
    };
    if rest(a) != rest(b) {
        return Err("two TLS policies for the same hosts select certificates in different ways".to_owned());
    }
    let tags = |selection: &Policy| selection.get("any_tag").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut joint = tags(a);
    for tag in tags(b) {
        if !joint.contains(&tag) {
            joint.push(tag);
        }
    }
    let mut selection = a.clone();
    if !joint.is_empty() {
        selection.insert("any_tag".to_owned(), Value::Array(joint));
    }
    Ok(Some(Value::Object(selection)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(value: Value) -> Policy {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn neighbours_with_equal_settings_share_one_policy_and_the_catch_all_goes_last() {
        let list = vec![
            policy(json!({})),
            policy(json!({"match": {"sni": ["a"]}, "protocol_min": "tls1.3"})),
            policy(json!({"match": {"sni": ["b"]}, "protocol_min": "tls1.3"})),
            policy(json!({})),
        ];
        let out = consolidate(list).unwrap();
        assert_eq!(
            out.into_iter().map(Value::Object).collect::<Value>(),
            json!([{"match": {"sni": ["a", "b"]}, "protocol_min": "tls1.3"}, {}])
        );
    }

    #[test]
    fn tags_of_the_same_hosts_join() {
        let with_tag =
            |tag: &str| policy(json!({"match": {"sni": ["a"]}, "certificate_selection": {"any_tag": [tag]}}));
        let out = consolidate(vec![with_tag("cert0"), with_tag("cert1")]).unwrap();
        assert_eq!(out.len(), 1);
        assert_eq!(out[0]["certificate_selection"], json!({"any_tag": ["cert0", "cert1"]}));
    }

    #[test]
    fn contradictions_are_refused() {
        let with = |protocol: &str| policy(json!({"match": {"sni": ["a"]}, "protocol_min": protocol}));
        assert!(consolidate(vec![with("tls1.2"), with("tls1.3")]).unwrap_err().contains("lowest protocol"));
    }
}
