"""LiteLLM as a client, `openai/` models and, with a third argument, `ollama_chat/` ones.
usage: litellm_cases.py BASE_URL KEY [OLLAMA_URL]"""
import os, sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # asks the network for its price list otherwise
import litellm

from cases import IMAGE, QUESTION, TOOLS, Cases, calls, pieces_joined

base, key, *ollama = sys.argv[1:]
litellm.suppress_debug_info = True
litellm.telemetry = False
case = Cases()


def ask(model="mock-chat", messages=QUESTION, **more):
    more = {"max_retries": 0, "timeout": 20, **more}
    return litellm.completion(model="openai/" + model, api_base=base, api_key=key, messages=messages, **more)


@case
def chat():
    answer = ask()
    return [answer.choices[0].message.content, answer.usage.total_tokens]


@case
def stream():
    pieces = [chunk.choices[0].delta.content for chunk in ask(stream=True) if chunk.choices]
    pieces = [piece for piece in pieces if piece]
    return ["".join(pieces), len(pieces)]


@case
def tools():
    return calls(ask(tools=TOOLS).choices[0].message.tool_calls)


@case
def streamed_tools():
    pieces = []
    for chunk in ask(tools=TOOLS, stream=True):
        pieces += chunk.choices[0].delta.tool_calls or []
    return pieces_joined(pieces)


@case
def image():
    return ask(messages=IMAGE).choices[0].message.content


@case
def embeddings():
    answer = litellm.embedding(
        model="openai/mock-embed", api_base=base, api_key=key, input=["a", "b"], encoding_format="float")
    return [item["embedding"] for item in answer.data]


@case
def wrong_key():
    litellm.completion(
        model="openai/mock-chat", api_base=base, api_key="sk-wrong", messages=QUESTION, max_retries=0)


@case
def unknown_model():
    ask("no-such-model")


@case
def rate_limit():
    ask("mock-429")


@case
def retried():
    return ask("mock-429-once", max_retries=2).choices[0].message.content


@case
def cancel():
    stream = ask("mock-slow", stream=True)
    seen = [next(stream), next(stream)]
    stream.completion_stream.close()
    return len(seen)


if ollama:
    def ask_ollama(messages=QUESTION, **more):
        return litellm.completion(model="ollama_chat/mock-chat", api_base=ollama[0], messages=messages, **more)

    @case
    def ollama_chat():
        return ask_ollama().choices[0].message.content

    @case
    def ollama_stream():
        return "".join(chunk.choices[0].delta.content or "" for chunk in ask_ollama(stream=True))

    @case
    def ollama_tools():
        return calls(ask_ollama(tools=TOOLS).choices[0].message.tool_calls)


case.tell()
