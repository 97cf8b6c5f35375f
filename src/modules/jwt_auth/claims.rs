//! What a token must claim, and who its bearer then is.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::fault::Fault;
use crate::http::exchange::User;
use crate::llm::model_glob::ModelGlobs;

type Claims = Map<String, Value>;

/// What is asked of the claims. Times are seconds since 1970.
#[derive(Debug, Default)]
pub struct Rules {
    /// Any of these; empty = not asked.
    pub issuers: Vec<String>,
    pub audiences: Vec<String>,
    pub required: Vec<Required>,
    /// How far clocks may differ, in seconds.
    pub leeway: i64,
    pub user_claim: String,
    /// Models come from this claim; `None` = all models.
    pub models_claim: Option<String>,
    pub may_lack_expiry: bool,
}

/// One `require` line.
#[derive(Debug)]
pub struct Required {
    pub claim: String,
    /// Any of these; empty = the claim is there.
    pub values: Vec<String>,
}

/// The bearer of a valid token.
#[derive(Debug)]
pub struct Caller {
    pub user: User,
    /// The last second in which the token is valid, leeway included.
    pub until: i64,
}

impl Rules {
    /// Judges the claims of a token whose signature is right.
    pub fn judge(&self, claims: &Claims, now: i64) -> Result<Caller, Fault> {
        let until = match time(claims, "exp")? {
            Some(expiry) => expiry.saturating_add(self.leeway),
            None if self.may_lack_expiry => i64::MAX,
            None => return Err(Fault::NoExpiry),
        };
        // Valid before the expiry, not at it (RFC 7519 §4.1.4).
        if now >= until {
            return Err(Fault::Expired);
        }
        for name in ["nbf", "iat"] {
            if time(claims, name)?.is_some_and(|start| start > now.saturating_add(self.leeway)) {
                return Err(Fault::NotYet);
            }
        }
        let is_issuer = |issuer: &str| self.issuers.iter().any(|known| known == issuer);
        if !self.issuers.is_empty() && !claims.get("iss").and_then(Value::as_str).is_some_and(is_issuer) {
            return Err(Fault::Issuer);
        }
        let is_audience = |audience: &str| self.audiences.iter().any(|known| known == audience);
        let audiences = claims.get("aud").map(texts).unwrap_or_default();
        if !self.audiences.is_empty() && !audiences.iter().any(|a| is_audience(a)) {
            return Err(Fault::Audience);
        }
        if !self.required.iter().all(|required| required.holds(claims)) {
            return Err(Fault::Claim);
        }
        let id = find(claims, &self.user_claim).and_then(text).filter(|id| is_user_id(id)).ok_or(Fault::User)?;
        // Who has no such claim is given no model, not all.
        let models = self.models_claim.as_ref().map(|name| {
            let patterns = find(claims, name).map(|value| words(value, true)).unwrap_or_default();
            Arc::new(ModelGlobs::new(patterns))
        });
        Ok(Caller { user: User { id, metadata: flattened(claims), models }, until })
    }
}

impl Required {
    fn holds(&self, claims: &Claims) -> bool {
        let Some(value) = find(claims, &self.claim).filter(|value| !value.is_null()) else { return false };
        let has = |wanted: &String| {
            // OAuth's scopes are one text of several words (RFC 8693 §4.2).
            words(value, matches!(self.claim.as_str(), "scope" | "scp")).contains(wanted)
        };
        self.values.is_empty() || self.values.iter().any(has)
    }
}

/// A NumericDate (RFC 7519 §2): seconds, perhaps with a fraction.
fn time(claims: &Claims, name: &str) -> Result<Option<i64>, Fault> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            // The cast saturates, and a date beyond all dates is as good as the last one.
            #[allow(clippy::cast_possible_truncation)]
            let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64));
            seconds.map(Some).ok_or(Fault::Malformed)
        }
    }
}

/// A claim by its name, or by the names on the way to it: `realm_access.roles`.
fn find<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    // Names may hold dots themselves (`https://a.test/roles`), so every dot may be the one that parts.
    path.match_indices('.').find_map(|(dot, _)| match claims.get(&path[..dot]) {
        Some(Value::Object(inner)) => find(inner, &path[dot + 1..]),
        _ => None,
    })
}

/// A scalar as text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A scalar, or the scalars of a list.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().filter_map(text).collect(),
        value => text(value).into_iter().collect(),
    }
}

/// The texts of a claim; `split` makes several of one text with blanks.
fn words(value: &Value, split: bool) -> Vec<String> {
    match value {
        Value::String(text) if split => text.split_whitespace().map(str::to_owned).collect(),
        value => texts(value),
    }
}

/// It becomes a key of counters and a word of logs.
fn is_user_id(id: &str) -> bool {
    (1..=256).contains(&id.len()) && !id.contains(char::is_control)
}

/// Claims as names and texts: those of objects by their path, lists joined by commas.
fn flattened(claims: &Claims) -> Vec<(String, String)> {
    let mut out = Vec::with_capacity(claims.len().min(MAX_CLAIMS));
    flatten(claims, "", 0, &mut out);
    out
}

const MAX_CLAIMS: usize = 64;
const MAX_NAME: usize = 128;
const MAX_DEPTH: usize = 4;

fn flatten(claims: &Claims, prefix: &str, depth: usize, out: &mut Vec<(String, String)>) {
    for (name, value) in claims {
        let name = format!("{prefix}{name}");
        if out.len() >= MAX_CLAIMS || name.len() > MAX_NAME {
            continue;
        }
        match value {
            Value::Null => {}
            Value::Object(inner) if depth < MAX_DEPTH => flatten(inner, &format!("{name}."), depth + 1, out),
            Value::Object(_) => {}
            value => out.push((name, texts(value).join(","))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;

    fn rules() -> Rules {
        Rules { user_claim: "sub".into(), leeway: 30, ..Rules::default() }
    }

    fn judge(rules: &Rules, claims: Value) -> Result<Caller, Fault> {
        let Value::Object(mut claims) = claims else { panic!("no object") };
        claims.entry("sub").or_insert("bob".into());
        claims.entry("exp").or_insert((NOW + 60).into());
        rules.judge(&claims, NOW)
    }

    fn fault(rules: &Rules, claims: Value) -> Option<Fault> {
        judge(rules, claims).err()
    }

    #[test]
    fn times_are_judged_with_leeway() {
        let rules = rules();
        for (claims, said) in [
            (json!({"exp":NOW + 60}), None),
            (json!({"exp":NOW - 29}), None),
            (json!({"exp":1_799_999_971.5}), None),
            (json!({"exp":NOW - 30}), Some(Fault::Expired)),
            (json!({"exp":0}), Some(Fault::Expired)),
            (json!({"exp":i64::MIN}), Some(Fault::Expired)),
            (json!({"exp":1e300}), None),
            (json!({"exp":u64::MAX}), None),
            (json!({"exp":(NOW + 60).to_string()}), Some(Fault::Malformed)),
            (json!({"exp":null}), Some(Fault::Malformed)),
            (json!({"nbf":NOW + 30,"iat":NOW + 30}), None),
            (json!({"nbf":NOW + 31}), Some(Fault::NotYet)),
            (json!({"iat":NOW + 31}), Some(Fault::NotYet)),
            (json!({"nbf":"soon"}), Some(Fault::Malformed)),
        ] {
            assert_eq!(fault(&rules, claims.clone()), said, "{claims}");
        }
        let Value::Object(endless) = json!({"sub":"bob"}) else { return };
        assert_eq!(rules.judge(&endless, NOW).err(), Some(Fault::NoExpiry));
        assert!(Rules { may_lack_expiry: true, ..rules }.judge(&endless, NOW).is_ok());
        assert_eq!(judge(&self::rules(), json!({})).unwrap().until, NOW + 90);
    }

    #[test]
    fn issuer_and_audience_must_be_among_those_named() {
        let rules = Rules {
            issuers: vec!["https://a.test".into(), "https://b.test".into()],
            audiences: vec!["llm".into()],
            ..rules()
        };
        assert_eq!(fault(&rules, json!({"iss":"https://b.test","aud":"llm"})), None);
        assert_eq!(fault(&rules, json!({"iss":"https://b.test","aud":["x","llm"]})), None);
        for iss in [json!(null), json!("https://a.test/"), json!(["https://a.test"]), json!("")] {
            assert_eq!(fault(&rules, json!({"iss":iss,"aud":"llm"})), Some(Fault::Issuer), "{iss}");
        }
        for aud in [json!(null), json!("LLM"), json!(["x"]), json!([]), json!({"llm":1}), json!("llm x")] {
            let claims = json!({"iss":"https://a.test","aud":aud});
            assert_eq!(fault(&rules, claims), Some(Fault::Audience), "{aud}");
        }
    }

    #[test]
    fn required_claims() {
        let require = |claim: &str, values: &[&str], claims: Value| {
            let values = values.iter().map(|v| (*v).to_owned()).collect();
            let rules = Rules { required: vec![Required { claim: claim.into(), values }], ..rules() };
            fault(&rules, claims).is_none()
        };
        assert!(require("role", &["admin", "dev"], json!({"role":"dev"})));
        assert!(require("roles", &["dev"], json!({"roles":["ops","dev"]})));
        assert!(require("realm.roles", &["dev"], json!({"realm":{"roles":["dev"]}})));
        assert!(require("https://a.test/roles", &["dev"], json!({"https://a.test/roles":["dev"]})));
        assert!(require("a.b.c", &["1"], json!({"a.b":{"c":1}})));
        assert!(require("scope", &["llm:read"], json!({"scope":"openid llm:read"})));
        assert!(require("email_verified", &["true"], json!({"email_verified":true})));
        assert!(require("team", &[], json!({"team":0})));
        for claims in
            [json!({}), json!({"role":"Dev"}), json!({"role":"dev ops"}), json!({"role":null}), json!({"role":{}})]
        {
            assert!(!require("role", &["dev"], claims.clone()), "{claims}");
        }
        assert!(!require("team", &[], json!({"team":null})));
        assert!(!require("scope", &["read"], json!({"scope":"llm:read"})));
    }

    #[test]
    fn the_caller_is_who_the_user_claim_says() {
        let rules = Rules { user_claim: "act.email".into(), ..rules() };
        assert_eq!(judge(&rules, json!({"act":{"email":"a@b.test"}})).unwrap().user.id, "a@b.test");
        assert_eq!(judge(&self::rules(), json!({"sub":17})).unwrap().user.id, "17");
        for sub in [json!(""), json!(null), json!(["a"]), json!("a\nb"), json!("a".repeat(257))] {
            assert_eq!(fault(&self::rules(), json!({"sub":sub})), Some(Fault::User), "{sub}");
        }
    }

    #[test]
    fn models_come_from_their_claim_and_without_it_there_are_none() {
        let rules = Rules { models_claim: Some("models".into()), ..rules() };
        let allows = |claims: Value, model: &str| judge(&rules, claims).unwrap().user.models.unwrap().allows(model);
        assert!(allows(json!({"models":["gpt-4o*","o3"]}), "gpt-4o-mini"));
        assert!(allows(json!({"models":"gpt-4o* o3"}), "o3"));
        assert!(!allows(json!({"models":["o3"]}), "gpt-4o"));
        assert!(!allows(json!({}), "gpt-4o"));
        assert!(judge(&self::rules(), json!({})).unwrap().user.models.is_none());
    }

    #[test]
    fn claims_become_placeholders_within_bounds() {
        let deep = (0..9).fold(json!("x"), |inner, _| json!({"d":inner}));
        let caller = judge(
            &rules(),
            json!({"team":"a","n":1.5,"roles":["x",2,null,{"y":1}],"o":{"p":{"q":true}},"gone":null,"deep":deep,
                "n".repeat(200):"x"}),
        )
        .unwrap();
        let get = |name: &str| caller.user.get(name);
        assert_eq!((get("team"), get("n"), get("roles")), (Some("a"), Some("1.5"), Some("x,2")));
        assert_eq!((get("o.p.q"), get("gone"), get("sub")), (Some("true"), None, Some("bob")));
        assert!(caller.user.metadata.iter().all(|(name, _)| name.len() <= MAX_NAME && !name.starts_with("deep")));
        let many: Claims = (0..1000).map(|i| (i.to_string(), json!(i))).collect();
        assert_eq!(flattened(&many).len(), MAX_CLAIMS);
    }
}
