// The official Ollama JavaScript client. usage: node ollama_cases.mjs BASE_URL FOLDER_OF_NODE_MODULES
import { Cases, PNG, QUESTION, TOOLS, load } from "./cases.mjs";

const [host, modules] = process.argv.slice(2);
const { Ollama } = load(modules, "ollama");
const client = new Ollama({ host });
const chat = (model, more = {}) => client.chat({ model, messages: QUESTION, ...more });
const all = async (stream) => {
	const items = [];
	for await (const item of stream) items.push(item);
	return items;
};
const calls = (message) => (message.tool_calls ?? []).map((call) => [call.function.name, call.function.arguments]);
const { it, tell } = Cases();

await it("tags", async () => (await client.list()).models.map((model) => model.model));
await it("show", async () => {
	const shown = await client.show({ model: "mock-chat" });
	const architecture = shown.model_info["general.architecture"];
	return [shown.capabilities, shown.model_info[`${architecture}.context_length`], shown.details.family];
});
await it("ps", async () => (await client.ps()).models.length);
await it("chat", async () => {
	const answer = await chat("mock-chat");
	return [answer.message.content, answer.done_reason, answer.prompt_eval_count, answer.eval_count];
});
await it("stream", async () => {
	const lines = await all(await chat("mock-chat", { stream: true }));
	const text = lines.map((line) => line.message.content).filter(Boolean);
	const done = lines.filter((line) => line.done).length;
	return [text.join(""), text.length, lines.at(-1).done, done, lines.at(-1).eval_count];
});
await it("tools", async () => calls((await chat("mock-chat", { tools: TOOLS })).message));
await it("streamed_tools", async () =>
	(await all(await chat("mock-chat", { tools: TOOLS, stream: true }))).flatMap((line) => calls(line.message)));
await it("tool_result", async () => {
	const first = (await chat("mock-chat", { tools: TOOLS })).message;
	const result = { role: "tool", tool_name: "get_weather", content: "21 degrees" };
	return (await chat("mock-chat", { messages: [...QUESTION, first, result], tools: TOOLS })).message.content;
});
await it("image", async () => {
	const messages = [{ role: "user", content: "What is it?", images: [PNG] }];
	return (await chat("mock-chat", { messages })).message.content;
});
await it("thinking", async () => {
	const { message } = await chat("mock-reason", { think: true });
	return [message.thinking, message.content];
});
await it("generate", async () => (await client.generate({ model: "mock-chat", prompt: "Hi" })).response);
await it("streamed_generate", async () => {
	const lines = await all(await client.generate({ model: "mock-chat", prompt: "Hi", stream: true }));
	return lines.map((line) => line.response).join("");
});
await it("embed", async () => (await client.embed({ model: "mock-embed", input: ["a", "b"] })).embeddings);
await it("embeddings", async () => (await client.embeddings({ model: "mock-embed", prompt: "a" })).embedding);
await it("unknown_model", () => chat("no-such-model"));
await it("unknown_show", () => client.show({ model: "no-such-model" }));
await it("rate_limit", () => chat("mock-429"));
await it("inband", async () => all(await chat("mock-inband", { stream: true })));
await it("cut", async () => all(await chat("mock-cut", { stream: true })));
await it("pull", () => client.pull({ model: "never-to-be-pulled" }));
await it("cancel", async () => {
	const stream = await chat("mock-slow", { stream: true });
	let seen = 0;
	for await (const _ of stream) if (++seen === 2) break;
	stream.abort();
	return seen;
});
tell();
