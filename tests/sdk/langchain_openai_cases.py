"""langchain-openai. usage: langchain_openai_cases.py BASE_URL KEY"""
import sys

from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from cases import IMAGE, TOOLS, Cases

base, key = sys.argv[1:]
case = Cases()


def model(name="mock-chat", **more):
    return ChatOpenAI(model=name, base_url=base, api_key=key, **{"max_retries": 0, "timeout": 20, **more})


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
def embeddings():
    embedder = OpenAIEmbeddings(
        model="mock-embed", base_url=base, api_key=key, max_retries=0, check_embedding_ctx_length=False)
    return embedder.embed_documents(["a", "b"])


@case
def wrong_key():
    ChatOpenAI(model="mock-chat", base_url=base, api_key="sk-wrong", max_retries=0).invoke("Hi")


@case
def unknown_model():
    model("no-such-model").invoke("Hi")


@case
def rate_limit():
    model("mock-429").invoke("Hi")


@case
def retried():
    return model("mock-429-once", max_retries=2).invoke("Hi").content


@case
def cancel():
    stream = model("mock-slow").stream("Hi")
    seen = [next(stream), next(stream)]
    stream.close()
    return len(seen)


case.tell()
