"""The official OpenAI Python SDK against a base URL: lists models, chats, streams, embeds. Prints one JSON line.
usage: chat.py BASE_URL KEY"""
import json, sys, time

from openai import AuthenticationError, OpenAI

base, key = sys.argv[1:]
client = OpenAI(base_url=base, api_key=key, max_retries=0, timeout=20)
models = [model.id for model in client.models.list()]
ask = {"model": models[0], "messages": [{"role": "user", "content": "Hi"}]}
chat = client.chat.completions.create(**ask)
streamed, arrivals, began = "", [], time.monotonic()
for chunk in client.chat.completions.create(**ask, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        streamed += chunk.choices[0].delta.content
        arrivals.append(time.monotonic() - began)
embedding = client.embeddings.create(model=models[0], input="Hi", encoding_format="float").data[0].embedding
try:
    OpenAI(base_url=base, api_key="sk-wrong", max_retries=0).models.list()
    refused = None
except AuthenticationError as error:
    refused = error.status_code
print(json.dumps({
    "models": models, "chat": chat.choices[0].message.content, "usage": chat.usage.total_tokens, "streamed": streamed,
    "pieces": len(arrivals), "spread": arrivals[-1] - arrivals[0], "embedding": len(embedding), "refused": refused,
}))
