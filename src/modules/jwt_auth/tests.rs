//! The handler as a whole: which tokens open, against issuers of every kind and a key server that changes its mind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use http::{HeaderValue, header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::testing::Signer;
use super::*;
use crate::http::exchange::Exchange;
use crate::http::handler::{AsyncHandler, Flow};
use crate::http::placeholder::Unknown;
use crate::modules::testing::{block_on, compile, exchange, step};

const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough";

fn claims(more: Value) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({"sub":"bob","exp":now + 600});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn with_token(token: &str) -> Exchange {
    let mut ex = exchange("POST", "/v1/chat/completions");
    ex.headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    ex
}

/// Status, reason for the log, challenge; 0 when the request goes on.
fn outcome(flow: Flow) -> (u16, String, String) {
    match flow {
        Flow::Next => (0, String::new(), String::new()),
        Flow::Fail(error) => {
            let challenge = error.headers.iter().find(|(n, _)| n == header::WWW_AUTHENTICATE);
            let challenge = challenge.map(|(_, v)| v.to_str().unwrap().to_owned()).unwrap_or_default();
            (error.status, error.message.to_string(), challenge)
        }
        _ => panic!("neither"),
    }
}

#[test]
fn a_valid_token_opens_is_taken_off_and_names_the_caller() {
    let gate = step(json!({"handler":"jwt_auth","secrets":[SECRET]}));
    let token = Signer::secret(SECRET.as_bytes()).sign(&claims(json!({"team":"a"})), None);
    // Twice: verified, then remembered.
    for _ in 0..2 {
        let mut ex = with_token(&token);
        ex.headers.insert("x-api-key", HeaderValue::from_static("sk-other"));
        assert!(matches!(gate.run(&mut ex), Flow::Next));
        assert!(!ex.headers.contains_key(header::AUTHORIZATION) && !ex.headers.contains_key("x-api-key"));
        let text = Template::parse("{http.auth.user.team} {auth.claim.team} {auth.claim.none}.");
        assert_eq!(text.render(&ex, Unknown::Empty), "a a .");
        let user = ex.user.unwrap();
        assert_eq!((user.id.as_str(), user.get("team")), ("bob", Some("a")));
        assert!(user.models.is_none());
    }
}

#[test]
fn a_caller_is_held_to_the_models_of_its_claim() {
    let config = json!({"handler":"jwt_auth","secrets":[SECRET],"models_claim":"models"});
    let Handler::Async(gate) = compile(config).unwrap() else { panic!("cannot wait for the body") };
    let ask = |models: Value, model: &str| {
        let token = Signer::secret(SECRET.as_bytes()).sign(&claims(json!({"models":models})), None);
        let mut ex = with_token(&token);
        ex.body = crate::base::body::Body::from(json!({"model":model}).to_string());
        let (status, _, _) = outcome(block_on(gate.call(&mut ex)));
        assert_eq!(ex.user.unwrap().id, "bob", "the log is told who it was");
        status
    };
    assert_eq!(ask(json!("gpt-*"), "gpt-4o"), 0);
    assert_eq!(ask(json!(["o3"]), "gpt-4o"), 403);
    assert_eq!(ask(json!(null), "gpt-4o"), 403);
}

#[test]
fn what_does_not_open_says_why_to_the_log_and_little_to_the_client() {
    let gate = step(json!({"handler":"jwt_auth","secrets":[SECRET],"require":[{"claim":"role","values":["dev"]}]}));
    let signer = Signer::secret(SECRET.as_bytes());
    let dev = || claims(json!({"role":"dev"}));
    let other = Signer::secret(&[b'o'; 40]).sign(&dev(), None);
    let unsigned = signer.sign_as(&json!({"alg":"none"}), &dev());
    let (right, others) = (signer.sign(&dev(), None), signer.sign(&claims(json!({"role":"dev","sub":"eve"})), None));
    let part = |token: &str, n| token.split('.').nth(n).unwrap().to_owned();
    let changed = [part(&right, 0), part(&others, 1), part(&right, 2)].join(".");
    let invalid = "Bearer error=\"invalid_token\"";
    for (token, status, reason, challenge) in [
        ("", 401, "missing token", "Bearer"),
        (&other, 401, "signature does not verify", invalid),
        (&unsigned, 401, "signature algorithm is not accepted", invalid),
        (&format!("{}.", unsigned.rsplit_once('.').unwrap().0), 401, "signature algorithm is not accepted", invalid),
        (&changed, 401, "signature does not verify", invalid),
        (&signer.sign_as(&json!({"alg":"HS512"}), &dev()), 401, "signature does not verify", invalid),
        (&signer.sign_as(&json!({"alg":"RS256"}), &dev()), 401, "signature algorithm is not accepted", invalid),
        (
            &signer.sign_as(&json!({"alg":"HS256","crit":["x"],"x":1}), &dev()),
            401,
            "token has an extension that must be understood",
            invalid,
        ),
        (&signer.sign(&claims(json!({"exp":1})), None), 401, "token has expired", invalid),
        (&signer.sign(&json!({"sub":"bob"}), None), 401, "token does not expire", invalid),
        (
            &signer.sign(&claims(json!({"role":"ops"})), None),
            403,
            "token lacks a required claim",
            "Bearer error=\"insufficient_scope\"",
        ),
        ("not-a-jwt", 401, "not a signed JSON Web Token", invalid),
        (&"e".repeat(9000), 401, "token is too long", invalid),
    ] {
        let mut ex = with_token(token);
        let flow = gate.run(&mut ex);
        if let Flow::Fail(error) = &flow {
            let said = format!("{error:?}");
            assert!(token.len() < 9 || !said.contains(token), "{said}");
        }
        assert_eq!(outcome(flow), (status, reason.to_owned(), challenge.to_owned()), "{token}");
        assert!(!ex.headers.contains_key(header::AUTHORIZATION), "a refused token stays");
        assert!(ex.user.is_none());
    }
}

#[test]
fn a_token_may_come_in_a_header_or_a_cookie() {
    let gate = step(json!({"handler":"jwt_auth","secrets":[SECRET],"headers":["X-Token"],"cookies":["session"]}));
    let token = Signer::secret(SECRET.as_bytes()).sign(&claims(json!({})), None);
    for (name, value) in [
        ("x-token", token.clone()),
        ("x-api-key", token.clone()),
        ("cookie", format!("a=1; session={token}")),
        ("sec-websocket-protocol", format!("realtime, openai-insecure-api-key.{token}")),
    ] {
        let mut ex = exchange("GET", "/");
        ex.headers.insert(name, value.parse().unwrap());
        assert!(matches!(gate.run(&mut ex), Flow::Next), "{name}");
        assert!(!format!("{:?}", ex.headers).contains(&token), "{name} goes up");
    }
    // Something else in the usual place is passed over, another token is not.
    let stranger = Signer::secret(&[b'o'; 40]).sign(&claims(json!({})), None);
    for (bearer, status) in [("sk-a-key", 0), (stranger.as_str(), 401)] {
        let mut ex = with_token(bearer);
        ex.headers.insert("cookie", format!("session={token}; a=1").parse().unwrap());
        assert_eq!(outcome(gate.run(&mut ex)).0, status, "{bearer}");
        assert_eq!(ex.headers["cookie"], "a=1");
    }
}

#[test]
fn each_kind_of_key_file_opens_for_its_own_tokens_only() {
    let signers = Signer::all();
    let files: Vec<_> = signers[1..]
        .iter()
        .map(|signer| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            std::io::Write::write_all(&mut file, signer.pem().as_bytes()).unwrap();
            file
        })
        .collect();
    for (file, own) in files.iter().zip(&signers[1..]) {
        let gate = step(json!({"handler":"jwt_auth","keys":[file.path()]}));
        for signer in &signers {
            let opens = matches!(gate.run(&mut with_token(&signer.sign(&claims(json!({})), None))), Flow::Next);
            assert_eq!(opens, std::ptr::eq(signer, own), "{} with the key of {}", signer.name(), own.name());
        }
        // The public key as a secret.
        let forged = Signer::secret(own.pem().as_bytes()).sign(&claims(json!({})), None);
        assert_eq!(outcome(gate.run(&mut with_token(&forged))).1, "signature algorithm is not accepted");
    }
}

#[test]
fn algorithms_narrow_what_the_keys_can_do() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let rsa = Signer::rsa();
    std::io::Write::write_all(&mut file, rsa.pem().as_bytes()).unwrap();
    let token = rsa.sign(&claims(json!({})), None);
    for (algorithms, opens) in [(json!([]), true), (json!(["RS256"]), true), (json!(["PS256", "RS384"]), false)] {
        let gate = step(json!({"handler":"jwt_auth","keys":[file.path()],"algorithms":algorithms}));
        assert_eq!(matches!(gate.run(&mut with_token(&token)), Flow::Next), opens, "{algorithms}");
    }
}

#[test]
fn what_cannot_run_is_refused() {
    let code = |config: Value| compile(config).err().unwrap().code;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, b"no key").unwrap();
    for (config, wanted) in [
        (json!({}), "no-jwt-key"),
        (json!({"secrets":["{env.LLMPROXY_TEST_IS_NOT_SET}"]}), "weak-secret"),
        (json!({"secrets":["{http.request.header.X}"]}), "token-not-fixed"),
        (json!({"secrets":["{file./nonexistent}"]}), "unreadable-file"),
        (json!({"keys":[file.path()]}), "invalid-jwt-key"),
        (json!({"keys":["/nonexistent"]}), "unreadable-file"),
        (json!({"jwks":{"url":"x"}}), "invalid-jwks-url"),
        (json!({"jwks":{"url":"https://a.test"},"algorithms":["none"]}), "unknown-algorithm"),
        (json!({"jwks":{"url":"https://a.test"},"algorithms":["HS256"]}), "algorithm-without-key"),
    ] {
        let mut whole = config.clone();
        whole["handler"] = "jwt_auth".into();
        assert_eq!(code(whole), wanted, "{config}");
    }
}

/// A key server: what it answers can be changed; it counts how often it was asked. `None` = 500.
struct Issuer {
    url: String,
    answer: Arc<std::sync::Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(answer: Option<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let answer = Arc::new(std::sync::Mutex::new(answer));
        let asked = Arc::new(AtomicUsize::new(0));
        let (shared, count) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 2048];
                let read = stream.read(&mut head).await.unwrap();
                assert!(head[..read].starts_with(b"GET /keys HTTP/1.1\r\n"));
                count.fetch_add(1, Ordering::SeqCst);
                let answer = shared.lock().unwrap().clone();
                let (status, body) = answer.map_or(("500 No", String::new()), |v| ("200 OK", v.to_string()));
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
        Self { url, answer, asked }
    }

    fn answers(&self, value: Option<Value>) {
        *self.answer.lock().unwrap() = value;
    }

    fn gate(&self) -> Box<dyn AsyncHandler> {
        match compile(json!({"handler":"jwt_auth","jwks":{"url":self.url}})).unwrap() {
            Handler::Async(gate) => gate,
            _ => panic!("does not wait"),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn set(keys: &[(&Signer, &str)]) -> Option<Value> {
    Some(json!({"keys":keys.iter().map(|(signer, id)| signer.jwk(id).unwrap()).collect::<Vec<_>>()}))
}

async fn ask(gate: &dyn AsyncHandler, token: &str) -> (u16, String) {
    let mut ex = with_token(token);
    let (status, reason, _) = outcome(gate.call(&mut ex).await);
    (status, reason)
}

#[test]
fn published_keys_are_fetched_once_and_again_for_a_key_that_is_new() {
    block_on(async {
        let (old, new) = (Signer::ec(), Signer::rsa());
        let issuer = Issuer::start(set(&[(&old, "old")])).await;
        let gate = issuer.gate();
        assert_eq!(issuer.asked(), 0, "nothing is fetched before it is needed");
        let token = |signer: &Signer, id| signer.sign(&claims(json!({})), id);
        let (first, second) = (token(&old, Some("old")), token(&old, None));
        // Requests that come at once wait for one fetch.
        let (one, two) = tokio::join!(ask(&*gate, &first), ask(&*gate, &second));
        assert_eq!((one.0, two.0, issuer.asked()), (0, 0, 1));
        // The issuer changes its key.
        issuer.answers(set(&[(&new, "new")]));
        assert_eq!(ask(&*gate, &token(&new, Some("new"))).await.0, 0);
        assert_eq!(issuer.asked(), 2);
        // What the old key signed, remembered or not, is not valid any more.
        assert_eq!(ask(&*gate, &first).await, (401, "no key has the id that the token names".into()));
        assert_eq!(ask(&*gate, &second).await, (401, "signature does not verify".into()));
        // Strangers cannot make us ask again and again.
        for id in ["a", "b", "c"] {
            assert_eq!(ask(&*gate, &token(&new, Some(id))).await.0, 401);
        }
        assert_eq!(issuer.asked(), 2);
        // A reload with the same URL knows the keys.
        assert_eq!(ask(&*issuer.gate(), &token(&new, Some("new"))).await.0, 0);
        assert_eq!(issuer.asked(), 2);
    });
}

#[test]
fn a_secret_of_the_issuer_is_no_key_and_a_stranger_does_not_open() {
    block_on(async {
        let signer = Signer::ec();
        let oct = json!({"keys":[{"kty":"oct","k":"YS1zZWNyZXQtb2YtdGhlLXRlc3RzLXRoYXQtaXMtbG9uZy1lbm91Z2g","kid":"s"},
            signer.jwk("k").unwrap()]});
        let issuer = Issuer::start(Some(oct)).await;
        let gate = issuer.gate();
        let forged = Signer::secret(SECRET.as_bytes()).sign(&claims(json!({})), Some("s"));
        assert_eq!(ask(&*gate, &forged).await, (401, "signature algorithm is not accepted".into()));
        let stranger = Signer::ec().sign(&claims(json!({})), Some("k"));
        assert_eq!(ask(&*gate, &stranger).await, (401, "signature does not verify".into()));
        assert_eq!(ask(&*gate, &signer.sign(&claims(json!({})), Some("k"))).await.0, 0);
    });
}

#[test]
fn without_any_key_nobody_is_judged_and_known_keys_outlive_the_server() {
    block_on(async {
        let signer = Signer::ec();
        let issuer = Issuer::start(None).await;
        let gate = issuer.gate();
        let token = signer.sign(&claims(json!({})), Some("k"));
        let unavailable = (503, "the issuer's keys are not available".to_owned());
        assert_eq!(ask(&*gate, &token).await, unavailable);
        // Not asked again for each request.
        assert_eq!(ask(&*gate, &token).await, unavailable);
        assert_eq!(issuer.asked(), 1);

        let issuer = Issuer::start(set(&[(&signer, "k")])).await;
        let gate = issuer.gate();
        assert_eq!(ask(&*gate, &token).await.0, 0);
        issuer.answers(None);
        let other = signer.sign(&claims(json!({"n":1})), Some("gone"));
        assert_eq!(ask(&*gate, &other).await, (401, "no key has the id that the token names".into()));
        assert_eq!(issuer.asked(), 2, "asked for the unknown key, in vain");
        assert_eq!(ask(&*gate, &signer.sign(&claims(json!({"n":2})), Some("k"))).await.0, 0, "known keys serve on");
        // Answers that are no key set are no better than none.
        issuer.answers(Some(json!({"keys":[]})));
        assert_eq!(ask(&*gate, &signer.sign(&claims(json!({"n":3})), Some("k"))).await.0, 0);
    });
}

#[test]
#[ignore = "prints what a verification costs; run by hand"]
fn cost() {
    for signer in Signer::all() {
        let (keys, token) = (KeySet(signer.keys()), signer.sign(&claims(json!({"roles":["a","b"]})), None));
        let verified = Verified::new().unwrap();
        let time = |f: &dyn Fn()| {
            let start = std::time::Instant::now();
            (0..2000).for_each(|_| f());
            start.elapsed() / 2000
        };
        let verify = time(&|| {
            let token = token::Token::parse(token.as_bytes()).unwrap();
            assert!(keys.check(&token).is_ok());
        });
        let digest = time(&|| {
            std::hint::black_box(verified.digest(token.as_bytes()));
        });
        eprintln!("{}: verify {verify:?}, digest {digest:?}", signer.name());
    }
}
