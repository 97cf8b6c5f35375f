"""langchain-ollama. usage: langchain_ollama_cases.py BASE_URL"""
import sys

from langchain_ollama import ChatOllama, OllamaEmbeddings

from cases import IMAGE, TOOLS, Cases

base, case = sys.argv[1], Cases()


def model(name="mock-chat", **more):
    return ChatOllama(model=name, base_url=base, **more)


def calls(message):
    return [[call["name"], call["args"]] for call in message.tool_calls]


@case
def chat():
    answer = model().invoke("Hi")
    return [answer.content, answer.usage_metadata["total_tokens"]]


@case
def stream():
    pieces = [chunk.content for chunk in model().stream("Hi")]
    return ["".join(pieces), len([piece for piece in pieces if piece])]


@case
def tools():
    return calls(model().bind_tools(TOOLS).invoke("Hi"))


@case
def streamed_tools():
    whole = None
    for chunk in model().bind_tools(TOOLS).stream("Hi"):
        whole = chunk if whole is None else whole + chunk
    return calls(whole)


@case
def image():
    return model().invoke([("user", IMAGE[0]["content"])]).content


@case
def thinking():
    answer = model("mock-reason", reasoning=True).invoke("Hi")
    return [answer.additional_kwargs.get("reasoning_content"), answer.content]


@case
def structured():
    return model(format="json").invoke("Hi").content


@case
def embeddings():
    return OllamaEmbeddings(model="mock-embed", base_url=base).embed_documents(["a", "b"])


@case
def unknown_model():
    model("no-such-model").invoke("Hi")


@case
def rate_limit():
    model("mock-429").invoke("Hi")


case.tell()
