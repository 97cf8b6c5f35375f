//! Unit tests of `budget`.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::base::body::Body;
use crate::http::error::HandlerError;
use crate::http::exchange::{Exchange, User};
use crate::http::handler::{AsyncHandler, Flow};
use crate::http::metering::Call;
use crate::llm::price::Nano;
use crate::llm::usage::{Certainty, Endpoint, Tokens};
use crate::modules::testing::{block_on, compile, exchange};
use crate::state::period::Period;

fn gate(config: Value) -> Box<dyn AsyncHandler> {
    match compile(config).unwrap() {
        Handler::Async(gate) => gate,
        _ => panic!("not asynchronous"),
    }
}

/// Of a name of its own, since purses are the process's.
fn budget(limit: &str, more: Value) -> Box<dyn AsyncHandler> {
    let name = format!("test-{}", fastrand::u64(..));
    let mut config = json!({"handler": "budget", "name": name, "limits": [{"limit": limit, "per": "day"}]});
    if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
        config.extend(more);
    }
    gate(config)
}

fn asking(path: &str, body: &str) -> Exchange {
    let mut ex = exchange("POST", path);
    ex.headers.insert("content-type", "application/json".parse().unwrap());
    ex.body = Body::Full(Bytes::from(body.to_owned()));
    ex.user = Some(User { id: "ann".to_owned(), ..User::default() });
    ex
}

fn chat(max_tokens: u64) -> Exchange {
    let body = json!({"model": "gpt-4o", "max_tokens": max_tokens, "messages": [{"role": "user", "content": "hi"}]});
    asking("/v1/chat/completions", &body.to_string())
}

fn admit(gate: &dyn AsyncHandler, ex: &mut Exchange) -> Result<(), HandlerError> {
    match block_on(gate.call(ex)) {
        Flow::Next => Ok(()),
        Flow::Fail(error) => Err(error),
        _ => panic!("neither on nor refused"),
    }
}

fn call(cost: Option<i64>, tokens: u64) -> Call {
    Call {
        unix_ms: 0,
        request_id: "r".to_owned(),
        user: Some("ann".to_owned()),
        labels: Vec::new(),
        model: Some(Rc::from("gpt-4o")),
        served: None,
        endpoint: Endpoint::Chat,
        route: String::new(),
        upstream: "up".into(),
        status: 200,
        stream: false,
        tokens: Tokens { input: 0, output: tokens, ..Tokens::default() },
        certainty: Certainty::Exact,
        service_tier: None,
        cost: cost.map(Nano),
        first_byte: None,
        duration: Duration::ZERO,
        retries: 0,
        charges: Vec::new(),
    }
}

fn header<'e>(error: &'e HandlerError, name: &str) -> Option<&'e str> {
    error.headers.iter().find(|(n, _)| n == name).and_then(|(_, value)| value.to_str().ok())
}

#[test]
fn the_worst_case_is_set_aside_and_given_back() {
    // A thousand tokens of gpt-4o are a cent.
    let gate = budget("$0.015", json!({}));
    let mut first = chat(1000);
    admit(&*gate, &mut first).unwrap();
    let mut second = chat(1000);
    admit(&*gate, &mut second).unwrap();
    let refused = admit(&*gate, &mut chat(1)).unwrap_err();
    assert_eq!((refused.status, header(&refused, "retry-after")), (429, Some("1")));
    assert_eq!(header(&refused, "x-should-retry"), Some("true"));
    drop(first);
    admit(&*gate, &mut chat(1)).unwrap();
    let other = User { id: "bob".to_owned(), ..User::default() };
    let mut of_bob = chat(1000);
    of_bob.user = Some(other);
    admit(&*gate, &mut of_bob).unwrap();
}

#[test]
fn what_is_spent_is_told_as_a_quota_and_not_to_be_tried_again() {
    let gate = budget("$0.01", json!({}));
    let mut ex = chat(10);
    admit(&*gate, &mut ex).unwrap();
    let mut taken = call(Some(10_000_000), 1000);
    for claim in ex.meter().take_reservations() {
        claim.settle(&mut taken);
    }
    let [charge] = &taken.charges[..] else { panic!("{:?}", taken.charges) };
    assert_eq!((charge.key.as_str(), charge.per, charge.cost, charge.tokens), ("ann", "day", Nano(10_000_000), 1000));
    assert_eq!(charge.share, [0, 1000]);
    assert_eq!(charge.period, Period::Day.start(charge.period));
    let refused = admit(&*gate, &mut chat(10)).unwrap_err();
    assert_eq!((refused.status, header(&refused, "x-should-retry")), (429, Some("false")));
    assert_eq!(header(&refused, "retry-after"), None);
    let told = refused.refusal.unwrap();
    assert_eq!((told.code, told.kind), (Some("insufficient_quota"), Some("insufficient_quota")));
    assert!(told.message.contains("$0.01 per day") && told.message.contains("T00:00:00Z"), "{}", told.message);
    // What generates nothing goes by what is left too; reading is free.
    assert_eq!(admit(&*gate, &mut asking("/v1/files", "{}")).unwrap_err().status, 429);
    admit(&*gate, &mut exchange("GET", "/v1/models")).unwrap();
}

#[test]
fn a_price_that_nobody_knows_is_never_nothing() {
    let body = r#"{"model":"house-model","messages":[]}"#;
    let strict = budget("$1", json!({}));
    let refused = admit(&*strict, &mut asking("/api/chat", body)).unwrap_err();
    assert_eq!((refused.status, refused.refusal.unwrap().code), (403, Some("price_unknown")));
    let mut realtime = exchange("GET", "/v1/realtime?model=gpt-4o-realtime-preview");
    realtime.headers.insert("upgrade", "websocket".parse().unwrap());
    assert_eq!(admit(&*strict, &mut realtime).unwrap_err().status, 403);
    admit(&*budget("$1", json!({"unknown_price": "allow"})), &mut asking("/api/chat", body)).unwrap();
    let tokens = budget("1k tokens", json!({}));
    admit(&*tokens, &mut asking("/api/chat", body)).unwrap();
}

#[test]
fn a_call_without_a_maximum_sets_aside_what_is_said_or_what_the_model_can_make() {
    let body = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"Hello, how are you today?"}]}"#;
    let set_aside = |more: Value| {
        let gate = budget("100M tokens", more);
        let mut held = Vec::new();
        // So many fit until one does not.
        for _ in 0..100_000 {
            let mut ex = asking("/v1/chat/completions", body);
            if admit(&*gate, &mut ex).is_err() {
                break;
            }
            held.push(ex);
        }
        100_000_000 / held.len()
    };
    let model = usize::try_from(crate::llm::model_table::ModelTable::default().get("gpt-4o").output).unwrap();
    assert!((model..model + 100).contains(&set_aside(json!({}))));
    assert!((50_000..50_100).contains(&set_aside(json!({"reserve": 50_000}))));
}

#[test]
fn running_streams_are_cut_only_where_it_is_asked_for() {
    use crate::http::metering::Running;
    for (cut_off, expected) in [(true, Running::Cut), (false, Running::GoOn)] {
        let gate = budget("1k tokens", json!({"cut_off": cut_off}));
        let mut ex = chat(100);
        admit(&*gate, &mut ex).unwrap();
        let mut claims = ex.meter().take_reservations();
        assert_eq!(claims[0].running(900), Running::GoOn);
        assert_eq!(claims[0].running(1000), expected);
        assert_eq!(admit(&*gate, &mut chat(1)).unwrap_err().status, 429, "more was set aside as it ran");
        drop(claims);
        admit(&*gate, &mut chat(1)).unwrap();
    }
}

#[test]
fn json_that_makes_no_sense_is_refused() {
    for (config, code) in [
        (json!({"handler": "budget", "name": "a"}), "budget-without-limit"),
        (json!({"handler": "budget", "name": "a b", "limits": [{"limit": "$1", "per": "day"}]}), "invalid-value"),
        (json!({"handler": "budget", "name": "a", "limits": [{"limit": "$1", "per": "year"}]}), "invalid-period"),
        (json!({"handler": "budget", "name": "a", "limits": [{"limit": "1", "per": "day"}]}), "invalid-amount"),
        (
            json!({"handler": "budget", "name": "a", "limits": [{"limit": "$1", "per": "day"}], "soft": 0}),
            "invalid-percentage",
        ),
        (
            json!({"handler": "budget", "name": "a", "limits": [{"limit": "$1", "per": "day"}, {"limit": "$2", "per": "day"}]}),
            "duplicate-option",
        ),
        (json!({"handler": "budget", "name": "a", "limits": [], "more": 1}), "invalid-json-config"),
    ] {
        assert_eq!(compile(config.clone()).err().map(|e| e.code), Some(code), "{config}");
    }
}
