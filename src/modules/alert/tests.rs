//! Unit tests of `alert`.

use serde_json::json;

use crate::http::exchange::User;
use crate::http::handler::Flow;
use crate::modules::testing::{compile, exchange, step};

#[test]
fn a_request_without_a_call_is_told_to_nobody() {
    let step = step(json!({"handler": "alert", "name": "a", "when": ["spend > $1", "new_network"]}));
    let mut ex = exchange("GET", "/v1/models");
    ex.user = Some(User { id: "ann".to_owned(), ..User::default() });
    assert!(matches!(step.run(&mut ex), Flow::Next));
    assert!(ex.meter.is_some());
}

#[test]
fn json_that_makes_no_sense_is_refused() {
    for (config, code) in [
        (json!({"handler": "alert", "name": "a"}), "alert-without-condition"),
        (json!({"handler": "alert", "name": "", "when": ["spend > $1"]}), "invalid-value"),
        (json!({"handler": "alert", "name": "a", "when": ["spend > 1"]}), "invalid-condition"),
        (json!({"handler": "alert", "name": "a", "when": ["spend > $1"], "hold_off": 0}), "invalid-duration"),
        (
            json!({"handler": "alert", "name": "a", "when": ["spend > $1"], "webhooks": [{"url": "a.test"}]}),
            "invalid-webhook-url",
        ),
        (
            json!({"handler": "alert", "name": "a", "when": ["spend > $1"],
                "webhooks": [{"url": "https://a.test", "secret": "whsec_??"}]}),
            "invalid-webhook-secret",
        ),
        (
            json!({"handler": "alert", "name": "a", "when": ["spend > $1"],
                "webhooks": [{"url": "https://a.test", "secret": "{http.request.host}"}]}),
            "invalid-webhook-secret",
        ),
        (
            json!({"handler": "alert", "name": "a", "when": ["spend > $1"], "webhooks": ["s3cret"]}),
            "invalid-json-config",
        ),
    ] {
        let error = compile(config.clone()).err().unwrap();
        assert_eq!(error.code, code, "{config}");
        assert!(!error.message.contains("s3cret"), "{}", error.message);
    }
}
