"""The official OpenAI Python SDK against a limit of the gateway. usage: openai_limited.py BASE_URL KEY"""
import sys

from openai import OpenAI

from cases import QUESTION, Cases

base, key = sys.argv[1:]
client = OpenAI(base_url=base, api_key=key, max_retries=3, timeout=20)
create, case = client.chat.completions.create, Cases()


@case
def left():
    # What is left stands in the headers of each answer, where users of the SDK read it.
    raw = client.chat.completions.with_raw_response.create(model="mock-chat", messages=QUESTION)
    return [raw.headers["x-ratelimit-limit-requests"], raw.headers["x-ratelimit-remaining-requests"]]


@case
def waited():
    return [create(model="mock-chat", messages=QUESTION).choices[0].message.content for _ in range(2)]


@case
def hopeless():
    # Longer than all that the zone allows: the SDK does not try again.
    create(model="mock-chat", messages=[{"role": "user", "content": "word " * 4000}])


case.tell()
