//! Answers of every format and provider, whole, streamed and cut.

use proptest::prelude::*;

use super::*;
use crate::llm::usage::tokenizer;

fn read(framing: Framing, body: &str) -> Answer {
    read_in(framing, body, body.len().max(1))
}

fn read_in(framing: Framing, body: &str, chunk: usize) -> Answer {
    let mut answer = Answer::new(framing);
    body.as_bytes().chunks(chunk).for_each(|piece| answer.feed(piece));
    answer.end();
    answer
}

fn events(all: &[&str]) -> String {
    all.iter().map(|event| format!("data: {event}\n\n")).collect()
}

fn lines(all: &[&str]) -> String {
    all.iter().map(|line| format!("{line}\n")).collect()
}

fn text_tokens(text: &str) -> u64 {
    tokenizer::load();
    tokenizer::exact(text).unwrap()
}

fn tokens(answer: &Answer) -> Tokens {
    let told = answer.told();
    assert!(told.input.is_some() && told.output.is_some(), "{told:?}");
    told.tokens
}

const CHAT: &str = r#"{"id":"c1","object":"chat.completion","created":5,"model":"gpt-4o-2024-08-06","choices":[{"index":0,"message":{"role":"assistant","content":"Hello there","refusal":null,"tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},"logprobs":{"content":[{"token":"Hello","logprob":-0.1}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":64,"audio_tokens":3},"completion_tokens_details":{"reasoning_tokens":8,"audio_tokens":1}},"service_tier":"flex"}"#;

#[test]
fn openai_chat_whole() {
    let answer = read(Framing::Whole, CHAT);
    let expected = Tokens {
        input: 100,
        cached: 64,
        output: 20,
        reasoning: 8,
        audio_input: 3,
        audio_output: 1,
        ..Tokens::default()
    };
    assert_eq!(tokens(&answer), expected);
    assert_eq!(
        (answer.model(), answer.id(), answer.service_tier()),
        (Some("gpt-4o-2024-08-06"), Some("c1"), Some("flex"))
    );
    assert_eq!(answer.text().bytes(), "Hello there".len() as u64 + 1 + 7);
}

fn chat_stream(usage: bool) -> String {
    let mut all = vec![
        r#"{"id":"c1","model":"m","created":7,"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#,
        r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"Hé"}},{"index":1,"delta":{"reasoning_content":"hm"}}],"usage":null}"#,
        r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]},"finish_reason":"stop"}],"usage":null}"#,
    ];
    if usage {
        all.push(r#"{"id":"c1","model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}"#);
    }
    all.push("[DONE]");
    events(&all)
}

#[test]
fn openai_chat_stream_with_and_without_usage() {
    let answer = read(Framing::Events, &chat_stream(true));
    assert_eq!(tokens(&answer), Tokens { input: 9, output: 4, ..Tokens::default() });
    assert_eq!((answer.is_finished(), answer.created(), answer.last_choice()), (true, 7, 1));
    let untold = read(Framing::Events, &chat_stream(false));
    assert_eq!((untold.told().output, untold.is_finished(), untold.text().bytes()), (None, true, 7));
}

#[test]
fn openai_responses() {
    let usage = r#"{"input_tokens":30,"input_tokens_details":{"cached_tokens":10,"cache_write_tokens":5},"output_tokens":8,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":38}"#;
    let expected = Tokens { input: 30, cached: 10, cache_write: 5, output: 8, reasoning: 3, ..Tokens::default() };
    let body = format!(
        r#"{{"id":"resp_1","object":"response","status":"completed","model":"gpt-5","output":[{{"type":"reasoning","summary":[{{"text":"ab"}}]}},{{"type":"message","content":[{{"type":"output_text","text":"cd"}}]}},{{"type":"function_call","name":"f","arguments":"{{}}"}}],"usage":{usage},"text":{{"format":{{"type":"text"}}}}}}"#
    );
    let answer = read(Framing::Whole, &body);
    assert_eq!((tokens(&answer), answer.text().bytes()), (expected, 7));
    let stream = events(&[
        r#"{"type":"response.created","response":{"id":"resp_1","model":"gpt-5","usage":null,"output":[]}}"#,
        r#"{"type":"response.output_text.delta","output_index":0,"delta":"ab"}"#,
        r#"{"type":"response.audio.delta","delta":"AAAAAAAA"}"#,
        r#"{"type":"response.function_call_arguments.delta","delta":"cd"}"#,
        r#"{"type":"response.output_text.done","text":"ab"}"#,
        &format!(r#"{{"type":"response.completed","response":{body}}}"#),
    ]);
    let answer = read(Framing::Events, &stream);
    assert_eq!((tokens(&answer), answer.text().bytes(), answer.is_finished()), (expected, 4, true));
    assert_eq!((answer.id(), answer.model()), (Some("resp_1"), Some("gpt-5")));
}

#[test]
fn completions_and_embeddings() {
    let answer = read(
        Framing::Whole,
        r#"{"object":"text_completion","choices":[{"text":"abc","index":0,"logprobs":{"tokens":["abc"]}}],"usage":{"prompt_tokens":2,"completion_tokens":1}}"#,
    );
    assert_eq!((tokens(&answer).output, answer.text().bytes()), (1, 3));
    let answer = read(
        Framing::Whole,
        r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2e-5]}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
    );
    assert_eq!((answer.told().input, answer.told().output, answer.text().bytes()), (Some(8), None, 0));
}

#[test]
fn anthropic_whole_and_stream() {
    let expected = Tokens {
        input: 10 + 300 + 50,
        cached: 300,
        cache_write: 20,
        cache_write_1h: 30,
        output: 42,
        ..Tokens::default()
    };
    let usage = r#"{"input_tokens":10,"cache_creation_input_tokens":50,"cache_read_input_tokens":300,"cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":30},"output_tokens":42,"service_tier":"priority"}"#;
    let whole = format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[{{"type":"thinking","thinking":"t","signature":"xxxx"}},{{"type":"text","text":"ab"}},{{"type":"tool_use","id":"i","name":"f","input":{{"a":1}}}}],"stop_reason":"end_turn","usage":{usage}}}"#
    );
    let answer = read(Framing::Whole, &whole);
    assert_eq!((tokens(&answer), answer.service_tier()), (expected, Some("priority")));
    assert_eq!(answer.text().bytes(), 1 + 2 + 1 + 7);
    let start = usage.replace("\"output_tokens\":42", "\"output_tokens\":1");
    let stream = [
        format!(r#"{{"type":"message_start","message":{{"id":"msg_1","type":"message","model":"claude","content":[],"stop_reason":null,"usage":{start}}}}}"#),
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"i","name":"f","input":{}}}"#.into(),
        r#"{"type":"ping"}"#.into(),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"ab"}}"#.into(),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#.into(),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"xxxx"}}"#.into(),
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":17}}"#.into(),
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":42}}"#.into(),
        r#"{"type":"message_stop"}"#.to_owned(),
    ];
    let named: String = stream.iter().map(|e| format!("event: x\r\ndata: {e}\r\n\r\n")).collect();
    let answer = read(Framing::Events, &named);
    assert_eq!((tokens(&answer), answer.text().bytes(), answer.is_finished()), (expected, 5, true));
    // Cut behind the beginning: the input is told, the output is not.
    let cut: String = stream[..4].iter().map(|e| format!("data: {e}\n\n")).collect();
    let told = read(Framing::Events, &cut).told();
    assert_eq!((told.input, told.output, told.output_so_far, told.tokens.cached), (Some(360), None, 1, 300));
}

#[test]
fn ollama_objects_and_lines() {
    let chat = lines(&[
        r#"{"model":"llama3","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"ab","thinking":"c"},"done":false}"#,
        r#"{"model":"llama3","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"x":1}}}]},"done":false}"#,
        r#"{"model":"llama3","message":{"content":""},"done":true,"done_reason":"stop","prompt_eval_count":11,"eval_count":5,"eval_duration":9}"#,
    ]);
    let answer = read(Framing::Lines, &chat);
    assert_eq!(tokens(&answer), Tokens { input: 11, output: 5, ..Tokens::default() });
    assert_eq!((answer.text().bytes(), answer.is_finished(), answer.model()), (3 + 1 + 7, true, Some("llama3")));
    let generate = r#"{"model":"m","response":"abc","thinking":"d","done":true,"context":[1,2,3],"prompt_eval_count":3,"eval_count":2}"#;
    assert_eq!(read(Framing::Whole, generate).text().bytes(), 4);
    let embed = read(Framing::Whole, r#"{"model":"m","embeddings":[[0.1,0.2]],"prompt_eval_count":6}"#);
    assert_eq!((embed.told().input, embed.told().output), (Some(6), None));
}

#[test]
fn gemini_in_all_its_forms() {
    let chunk = |text: &str, output: u32, end: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}},{{"functionCall":{{"name":"f","args":{{"a":1}}}}}}],"role":"model"}}{end}}}],"usageMetadata":{{"promptTokenCount":20,"cachedContentTokenCount":5,"candidatesTokenCount":{output},"thoughtsTokenCount":7,"toolUsePromptTokenCount":2,"totalTokenCount":99,"promptTokensDetails":[{{"modality":"TEXT","tokenCount":16}},{{"modality":"AUDIO","tokenCount":4}}]}},"modelVersion":"gemini-2.5-pro"}}"#
        )
    };
    let expected = Tokens { input: 22, cached: 5, output: 10, reasoning: 7, audio_input: 4, ..Tokens::default() };
    let (first, last) = (chunk("ab", 1, ""), chunk("c", 3, r#","finishReason":"STOP""#));
    for (framing, body) in [
        (Framing::Whole, last.clone()),
        (Framing::Whole, format!("[{first},\n{last}]")),
        (Framing::Events, events(&[&first, &last])),
    ] {
        let answer = read(framing, &body);
        assert_eq!((tokens(&answer), answer.is_finished(), answer.model()), (expected, true, Some("gemini-2.5-pro")));
    }
}

#[test]
fn habits_of_single_providers() {
    let usage = |fields: &str| read(Framing::Whole, &format!(r#"{{"choices":[],"usage":{{{fields}}}}}"#)).told().tokens;
    // DeepSeek, Moonshot.
    assert_eq!(
        usage(r#""prompt_tokens":10,"completion_tokens":1,"prompt_cache_hit_tokens":6,"prompt_cache_miss_tokens":4"#)
            .cached,
        6
    );
    assert_eq!(usage(r#""prompt_tokens":10,"completion_tokens":1,"cached_tokens":6"#).cached, 6);
    // xAI: thoughts on top.
    let grok = usage(
        r#""prompt_tokens":10,"completion_tokens":1,"total_tokens":31,"completion_tokens_details":{"reasoning_tokens":20}"#,
    );
    assert_eq!((grok.output, grok.reasoning), (21, 20));
    // Gemini's OpenAI format: thoughts only in the sum.
    assert_eq!(usage(r#""prompt_tokens":10,"completion_tokens":1,"total_tokens":31"#).output, 21);
    // LiteLLM: Anthropic's counts beside OpenAI's, which contain them.
    let both = usage(
        r#""prompt_tokens":100,"completion_tokens":1,"cache_read_input_tokens":60,"cache_creation_input_tokens":20"#,
    );
    assert_eq!((both.input, both.cached, both.cache_write), (100, 60, 20));
    // Groq's stream.
    let groq = read(
        Framing::Events,
        &events(&[r#"{"choices":[],"x_groq":{"id":"r","usage":{"prompt_tokens":3,"completion_tokens":4}}}"#]),
    );
    assert_eq!(tokens(&groq).total(), 7);
    // A transcript, an image.
    assert_eq!(usage(r#""type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":10,"audio_tokens":4},"output_tokens":101,"total_tokens":115"#).audio_input, 4);
}

#[test]
fn nonsense_never_makes_parts_larger_than_the_whole() {
    let body = r#"{"usage":{"input_tokens":5,"cache_read_input_tokens":18446744073709551615,"cache_creation_input_tokens":7,"cache_creation":{"ephemeral_1h_input_tokens":900},"output_tokens":-3,"prompt_tokens_details":{"cached_tokens":1e300},"output_tokens_details":{"reasoning_tokens":18446744073709551615},"cache_creation":{"ephemeral_5m_input_tokens":18446744073709551615}},"usageMetadata":{"thoughtsTokenCount":18446744073709551615,"toolUsePromptTokenCount":18446744073709551615}}"#;
    let tokens = read(Framing::Whole, body).told().tokens;
    assert!(
        tokens.cached <= tokens.input && tokens.cache_write + tokens.cache_write_1h <= tokens.input - tokens.cached
    );
    assert!(tokens.reasoning <= tokens.output);
}

#[test]
fn a_text_without_counts_is_counted_as_it_was_said() {
    let text = "The answer to that is quite \"simple\":\n\tfor x in y: print(x) — 日本語 😀";
    let json = serde_json::to_string(text).unwrap();
    let stream: String = (0..4)
        .map(|_| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{json}}}}}]}}\n\n"))
        .collect();
    let counted = text_tokens(&text.repeat(4));
    assert_eq!(read(Framing::Events, &stream).text().tokens(), counted);
}

#[test]
fn types_tell_how_an_answer_is_framed() {
    assert_eq!(Framing::of(b"text/event-stream; charset=utf-8"), Some(Framing::Events));
    assert_eq!(Framing::of(b"application/x-ndjson"), Some(Framing::Lines));
    assert_eq!(Framing::of(b"Application/JSON"), Some(Framing::Whole));
    assert_eq!(Framing::of(b"application/problem+json"), Some(Framing::Whole));
    assert_eq!(Framing::of(b"audio/mpeg"), None);
}

#[test]
fn a_stream_may_be_cut_anywhere_and_end_its_lines_in_any_way() {
    for ends in ["\n", "\r\n", "\r"] {
        let body = format!("\u{feff}: hello{ends}{}", chat_stream(true).replace('\n', ends));
        for chunk in [1, 2, 3, 7, 64] {
            let answer = read_in(Framing::Events, &body, chunk);
            assert_eq!(
                (tokens(&answer).total(), answer.text().bytes(), answer.is_finished()),
                (13, 7, true),
                "{ends:?} {chunk}"
            );
        }
    }
    let split = "data: {\"usage\":\ndata: {\"prompt_tokens\":1,\ndata:\"completion_tokens\":2}}\n\n";
    assert_eq!(tokens(&read(Framing::Events, split)).total(), 3);
    assert_eq!(
        tokens(&read(Framing::Events, "data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}")).total(),
        3
    );
}

proptest! {
    #[test]
    fn any_bytes_are_survived_and_cut_alike(bytes in prop::collection::vec(prop_oneof![
        Just(b"data: ".to_vec()), Just(b"\n".to_vec()), Just(b"\r".to_vec()), Just(br#"{"usage":{"prompt_tokens":4,"#.to_vec()),
        Just(br#""completion_tokens":3}}"#.to_vec()), Just(br#"{"choices":[{"delta":{"content":"a"#.to_vec()), prop::collection::vec(any::<u8>(), 1..3)
    ], 0..24), chunk in 1_usize..9) {
        let body = bytes.concat();
        for framing in [Framing::Whole, Framing::Events, Framing::Lines] {
            let (mut one, mut many) = (Answer::new(framing), Answer::new(framing));
            one.feed(&body);
            body.chunks(chunk).for_each(|piece| many.feed(piece));
            one.end();
            many.end();
            prop_assert_eq!((one.told(), one.text().bytes(), one.is_finished()), (many.told(), many.text().bytes(), many.is_finished()));
        }
    }
}
