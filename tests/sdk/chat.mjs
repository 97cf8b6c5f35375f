// The official OpenAI JavaScript SDK against a base URL: lists models, chats, streams, embeds. Prints one JSON line.
// usage: node chat.mjs BASE_URL KEY FOLDER_OF_NODE_MODULES
import { createRequire } from "node:module";

const [base, key, modules] = process.argv.slice(2);
const { default: OpenAI } = createRequire(modules + "/package.json")("openai");
const client = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 0, timeout: 20000 });

const models = [];
for await (const model of client.models.list()) models.push(model.id);
const ask = { model: models[0], messages: [{ role: "user", content: "Hi" }] };
const chat = await client.chat.completions.create(ask);
let streamed = "";
const arrivals = [];
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
	const text = chunk.choices[0]?.delta?.content;
	if (text) {
		streamed += text;
		arrivals.push(performance.now() / 1000);
	}
}
const embedded = await client.embeddings.create({ model: models[0], input: "Hi", encoding_format: "float" });
let refused = null;
try {
	await new OpenAI({ baseURL: base, apiKey: "sk-wrong", maxRetries: 0 }).models.list();
} catch (error) {
	refused = error.status;
}
console.log(JSON.stringify({
	models, chat: chat.choices[0].message.content, usage: chat.usage.total_tokens, streamed,
	pieces: arrivals.length, spread: arrivals.at(-1) - arrivals[0], embedding: embedded.data[0].embedding.length, refused,
}));
