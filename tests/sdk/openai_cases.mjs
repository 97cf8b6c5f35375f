// The official OpenAI JavaScript SDK. usage: node openai_cases.mjs BASE_URL KEY FOLDER_OF_NODE_MODULES
import { Cases, IMAGE, QUESTION, TOOLS, load } from "./cases.mjs";

const [base, key, modules] = process.argv.slice(2);
const { default: OpenAI } = load(modules, "openai");
const client = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 0, timeout: 20000 });
const create = (model, more = {}) => client.chat.completions.create({ model, messages: QUESTION, ...more });
const all = async (stream) => {
	const items = [];
	for await (const item of stream) items.push(item);
	return items;
};
const calls = (list) => list.map((call) => [call.function.name, JSON.parse(call.function.arguments)]);
const { it, tell } = Cases();

await it("models", async () => (await all(client.models.list())).map((model) => model.id));
await it("model_with_slash", async () => (await client.models.retrieve("vendor/mock:latest")).id);
await it("chat", async () => {
	const answer = await create("mock-chat");
	return [answer.choices[0].message.content, answer.usage.total_tokens];
});
await it("stream", async () => {
	const chunks = await all(await create("mock-chat", { stream: true, stream_options: { include_usage: true } }));
	const choices = chunks.flatMap((chunk) => chunk.choices);
	const text = choices.map((choice) => choice.delta.content).filter(Boolean);
	const usage = chunks.findLast((chunk) => chunk.usage).usage;
	return [text.join(""), usage.total_tokens, text.length, choices.filter((choice) => choice.finish_reason).length];
});
await it("tools", async () => calls((await create("mock-chat", { tools: TOOLS })).choices[0].message.tool_calls));
await it("streamed_tools", async () => {
	// The SDK's own joining of the pieces.
	const runner = client.chat.completions.stream({ model: "mock-chat", messages: QUESTION, tools: TOOLS });
	return calls((await runner.finalMessage()).tool_calls);
});
await it("image", async () => (await create("mock-chat", { messages: IMAGE })).choices[0].message.content);
await it("reasoning", async () => {
	const { message } = (await create("mock-reason")).choices[0];
	return [message.reasoning_content, message.content];
});
await it("responses", async () => (await client.responses.create({ model: "mock-chat", input: "Hi" })).output_text);
await it("streamed_responses", async () => {
	const events = await all(await client.responses.create({ model: "mock-chat", input: "Hi", stream: true }));
	const deltas = events.filter((event) => event.type === "response.output_text.delta");
	return [deltas.map((event) => event.delta).join(""), events.at(-1).type];
});
await it("embeddings", async () => {
	const answer = await client.embeddings.create({ model: "mock-embed", input: ["a", "b"] });
	return answer.data.map((item) => Array.from(item.embedding));
});
await it("wrong_key", () => new OpenAI({ baseURL: base, apiKey: "sk-wrong", maxRetries: 0 }).models.list());
await it("unknown_model", () => create("no-such-model"));
await it("rate_limit", () => create("mock-429"));
await it("retried", async () => {
	const patient = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 2 });
	const answer = await patient.chat.completions.create({ model: "mock-429-once", messages: QUESTION });
	return answer.choices[0].message.content;
});
await it("server_error", () => create("mock-500"));
await it("inband", async () => all(await create("mock-inband", { stream: true })));
await it("cut", async () => all(await create("mock-cut", { stream: true })));
await it("broken", async () => all(await create("mock-broken", { stream: true })));
await it("broken_responses", async () =>
	all(await client.responses.create({ model: "mock-broken", input: "Hi", stream: true })),
);
await it("silent", async () => {
	let text = "";
	for await (const chunk of await create("mock-silent", { stream: true })) text += chunk.choices[0]?.delta.content ?? "";
	return text;
});
await it("silent_responses", async () => {
	let text = "";
	for await (const event of await client.responses.create({ model: "mock-silent", input: "Hi", stream: true }))
		if (event.type === "response.output_text.delta") text += event.delta;
	return text;
});
await it("cancel", async () => {
	const stream = await create("mock-slow", { stream: true });
	let seen = 0;
	for await (const _ of stream) if (++seen === 2) break;
	return seen;
});
tell();
