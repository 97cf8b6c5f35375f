"""The official OpenAI and Anthropic Python SDKs against a budget that is spent while they stream. usage: budget_cases.py BASE"""
import sys

from anthropic import Anthropic
from openai import OpenAI

from cases import QUESTION, Cases

base = sys.argv[1]
case = Cases()
LONG = {"x-make": "100000", "x-pause": "1"}
openai = OpenAI(base_url=base + "/v1", api_key="k", max_retries=3, timeout=20, default_headers={"x-key": "openai"})
anthropic = Anthropic(base_url=base, api_key="k", max_retries=3, timeout=20, default_headers={"x-key": "anthropic"})


@case
def openai_cut():
    stream = openai.chat.completions.create(model="mock", messages=QUESTION, stream=True, extra_headers=LONG)
    return [c.choices[0].finish_reason for c in stream if c.choices and c.choices[0].finish_reason][-1]


@case
def anthropic_cut():
    with anthropic.messages.stream(model="mock", max_tokens=100000, messages=QUESTION, extra_headers=LONG) as stream:
        return stream.get_final_message().stop_reason


@case
def openai_spent():
    openai.chat.completions.create(model="mock", messages=QUESTION)


@case
def anthropic_spent():
    anthropic.messages.create(model="mock", max_tokens=100, messages=QUESTION)


case.tell()
