"""The official OpenAI Python SDK. usage: openai_cases.py BASE_URL KEY"""
import sys

from openai import OpenAI

from cases import IMAGE, QUESTION, TOOLS, Cases, calls, pieces_joined

base, key = sys.argv[1:]
client = OpenAI(base_url=base, api_key=key, max_retries=0, timeout=20)
create, case = client.chat.completions.create, Cases()


@case
def models():
    return [model.id for model in client.models.list()]


@case
def model_with_slash():
    return client.models.retrieve("vendor/mock:latest").id


@case
def chat():
    answer = create(model="mock-chat", messages=QUESTION)
    return [answer.choices[0].message.content, answer.usage.total_tokens]


@case
def stream():
    text, usage, finishes = [], None, 0
    for chunk in create(model="mock-chat", messages=QUESTION, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += [choice.delta.content] if choice.delta.content else []
            finishes += choice.finish_reason is not None
    return ["".join(text), usage.total_tokens, len(text), finishes]


@case
def tools():
    return calls(create(model="mock-chat", messages=QUESTION, tools=TOOLS).choices[0].message.tool_calls)


@case
def streamed_tools():
    pieces = []
    for chunk in create(model="mock-chat", messages=QUESTION, tools=TOOLS, stream=True):
        pieces += chunk.choices[0].delta.tool_calls or []
    return pieces_joined(pieces)


@case
def tool_result():
    first = create(model="mock-chat", messages=QUESTION, tools=TOOLS).choices[0].message
    results = [{"role": "tool", "tool_call_id": call.id, "content": "21 degrees"} for call in first.tool_calls]
    return create(model="mock-chat", messages=[*QUESTION, first, *results], tools=TOOLS).choices[0].message.content


@case
def image():
    return create(model="mock-chat", messages=IMAGE).choices[0].message.content


@case
def reasoning():
    message = create(model="mock-reason", messages=QUESTION).choices[0].message
    return [message.reasoning_content, message.content]


@case
def responses():
    return client.responses.create(model="mock-chat", input="Hi").output_text


@case
def streamed_responses():
    events = list(client.responses.create(model="mock-chat", input="Hi", stream=True))
    return ["".join(e.delta for e in events if e.type == "response.output_text.delta"), events[-1].type]


@case
def embeddings():
    # The SDK asks for base64 by itself.
    return [list(d.embedding) for d in client.embeddings.create(model="mock-embed", input=["a", "b"]).data]


@case
def wrong_key():
    OpenAI(base_url=base, api_key="sk-wrong", max_retries=0).models.list()


@case
def unknown_model():
    create(model="no-such-model", messages=QUESTION)


@case
def rate_limit():
    create(model="mock-429", messages=QUESTION)


@case
def retried():
    # The SDK waits as the answer's Retry-After says, and asks again.
    return client.with_options(max_retries=2).chat.completions.create(
        model="mock-429-once", messages=QUESTION).choices[0].message.content


@case
def server_error():
    create(model="mock-500", messages=QUESTION)


@case
def inband():
    list(create(model="mock-inband", messages=QUESTION, stream=True))


@case
def cut():
    list(create(model="mock-cut", messages=QUESTION, stream=True))


@case
def broken():
    list(create(model="mock-broken", messages=QUESTION, stream=True))


@case
def broken_responses():
    list(client.responses.create(model="mock-broken", input="Hi", stream=True))


@case
def silent():
    stream = create(model="mock-silent", messages=QUESTION, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


@case
def silent_responses():
    stream = client.responses.create(model="mock-silent", input="Hi", stream=True)
    return "".join(event.delta for event in stream if event.type == "response.output_text.delta")


@case
def cancel():
    stream = create(model="mock-slow", messages=QUESTION, stream=True)
    seen = [next(stream), next(stream)]
    stream.close()
    return len(seen)


case.tell()
