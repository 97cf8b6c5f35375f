"""What the scripts of the Python clients share: the questions, the answers' bookkeeping, one JSON line at the end."""
import json, sys, time

QUESTION = [{"role": "user", "content": "Hi"}]
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "d", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
    for name in ("get_weather", "get_time")
]
# One red pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
IMAGE = [{"role": "user", "content": [
    {"type": "text", "text": "What is it?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PNG}},
]}]


class Cases:
    """Each case is a function; what it raises is its result too, by the name of the class and its status."""

    def __init__(self):
        self.results = {}

    def __call__(self, case):
        began = time.monotonic()
        try:
            result = case()
        except Exception as error:
            status = getattr(error, "status_code", None)
            code = getattr(error, "code", None)
            result = {"raised": type(error).__name__, "status": status, "code": str(code), "says": str(error)[:300]}
        self.results[case.__name__] = result
        self.results[case.__name__ + "_took"] = time.monotonic() - began
        return case

    def tell(self):
        json.dump(self.results, sys.stdout)


def calls(tool_calls):
    """Name and arguments of OpenAI's tool calls, whole ones."""
    return [[call.function.name, json.loads(call.function.arguments)] for call in tool_calls]


def pieces_joined(pieces):
    """Name and arguments of streamed tool calls, by their index."""
    whole = {}
    for piece in pieces:
        call = whole.setdefault(piece.index, ["", ""])
        call[0] += piece.function.name or ""
        call[1] += piece.function.arguments or ""
    return [[name, json.loads(arguments)] for _, (name, arguments) in sorted(whole.items())]
