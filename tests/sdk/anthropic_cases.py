"""The official Anthropic Python SDK. usage: anthropic_cases.py BASE_URL KEY"""
import sys

from anthropic import Anthropic

from cases import QUESTION, Cases

base, key = sys.argv[1:]
client = Anthropic(base_url=base, api_key=key, max_retries=0, timeout=20)
ask, case = {"max_tokens": 100, "messages": QUESTION}, Cases()


@case
def chat():
    answer = client.messages.create(model="mock-chat", **ask)
    return [answer.content[0].text, answer.usage.output_tokens]


@case
def stream():
    with client.messages.stream(model="mock-chat", **ask) as stream:
        pieces = list(stream.text_stream)
        return ["".join(pieces), stream.get_final_message().usage.output_tokens, len(pieces)]


@case
def count():
    return client.messages.count_tokens(model="mock-chat", messages=QUESTION).input_tokens


@case
def wrong_key():
    Anthropic(base_url=base, api_key="sk-wrong", max_retries=0).messages.create(model="mock-chat", **ask)


@case
def bearer():
    # As with an OAuth token: `Authorization: Bearer` in the place of `x-api-key`.
    return Anthropic(base_url=base, auth_token=key, max_retries=0).messages.create(model="mock-chat", **ask).role


@case
def unknown_model():
    client.messages.create(model="no-such-model", **ask)


@case
def rate_limit():
    client.messages.create(model="mock-429", **ask)


@case
def retried():
    return client.with_options(max_retries=2).messages.create(model="mock-429-once", **ask).content[0].text


@case
def broken():
    with client.messages.stream(model="mock-broken", **ask) as stream:
        return stream.get_final_text()


@case
def silent():
    with client.messages.stream(model="mock-silent", **ask) as stream:
        message = stream.get_final_message()
        return [message.content[0].text, message.usage.output_tokens]


@case
def cancel():
    with client.messages.create(model="mock-slow", stream=True, **ask) as stream:
        return next(iter(stream)).type


case.tell()
