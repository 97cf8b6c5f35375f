"""The official Ollama Python client. usage: ollama_cases.py BASE_URL"""
import sys

from ollama import Client

from cases import PNG, QUESTION, TOOLS, Cases

client, case = Client(host=sys.argv[1], timeout=20), Cases()


def calls(message):
    return [[call.function.name, dict(call.function.arguments)] for call in message.tool_calls]


@case
def tags():
    return [model.model for model in client.list().models]


@case
def show():
    shown = client.show("mock-chat")
    architecture = shown.modelinfo["general.architecture"]
    return [shown.capabilities, shown.modelinfo[architecture + ".context_length"], shown.details.family]


@case
def ps():
    return len(client.ps().models)


@case
def chat():
    answer = client.chat("mock-chat", QUESTION)
    return [answer.message.content, answer.done_reason, answer.prompt_eval_count, answer.eval_count]


@case
def stream():
    lines = list(client.chat("mock-chat", QUESTION, stream=True))
    text = [line.message.content for line in lines if line.message.content]
    return ["".join(text), len(text), lines[-1].done, sum(bool(line.done) for line in lines), lines[-1].eval_count]


@case
def tools():
    return calls(client.chat("mock-chat", QUESTION, tools=TOOLS).message)


@case
def streamed_tools():
    found = []
    for line in client.chat("mock-chat", QUESTION, tools=TOOLS, stream=True):
        found += calls(line.message) if line.message.tool_calls else []
    return found


@case
def tool_result():
    first = client.chat("mock-chat", QUESTION, tools=TOOLS).message
    result = {"role": "tool", "tool_name": "get_weather", "content": "21 degrees"}
    return client.chat("mock-chat", [*QUESTION, first, result], tools=TOOLS).message.content


@case
def image():
    return client.chat("mock-chat", [{"role": "user", "content": "What is it?", "images": [PNG]}]).message.content


@case
def thinking():
    message = client.chat("mock-reason", QUESTION, think=True).message
    return [message.thinking, message.content]


@case
def generate():
    return client.generate("mock-chat", "Hi").response


@case
def streamed_generate():
    return "".join(line.response for line in client.generate("mock-chat", "Hi", stream=True))


@case
def embed():
    return [list(vector) for vector in client.embed("mock-embed", ["a", "b"]).embeddings]


@case
def embeddings():
    return list(client.embeddings("mock-embed", "a").embedding)


@case
def unknown_model():
    client.chat("no-such-model", QUESTION)


@case
def unknown_show():
    client.show("no-such-model")


@case
def rate_limit():
    client.chat("mock-429", QUESTION)


@case
def inband():
    list(client.chat("mock-inband", QUESTION, stream=True))


@case
def cut():
    return [line.done for line in client.chat("mock-cut", QUESTION, stream=True)]


@case
def pull():
    client.pull("never-to-be-pulled")


@case
def cancel():
    stream = client.chat("mock-slow", QUESTION, stream=True)
    seen = [next(stream), next(stream)]
    stream.close()
    return len(seen)


case.tell()
