// What the scripts of the JavaScript clients share: the questions, the results' bookkeeping, one JSON line at the end.
import { createRequire } from "node:module";

export const QUESTION = [{ role: "user", content: "Hi" }];
export const TOOLS = ["get_weather", "get_time"].map((name) => ({
	type: "function",
	function: {
		name,
		description: "d",
		parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
	},
}));
// One red pixel.
export const PNG =
	"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
const url = `data:image/png;base64,${PNG}`;
export const IMAGE = [
	{ role: "user", content: [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url } }] },
];

export const load = (modules, name) => createRequire(`${modules}/package.json`)(name);

// What a case throws is its result too, by the name of the class and its status.
export function Cases() {
	const results = {};
	const it = async (name, work) => {
		const began = performance.now();
		try {
			results[name] = (await work()) ?? null;
		} catch (error) {
			const status = error.status ?? error.status_code ?? null;
			const says = String(error.message).slice(0, 300);
			results[name] = { raised: error.constructor.name, status, code: String(error.code), says };
		}
		results[`${name}_took`] = (performance.now() - began) / 1000;
	};
	return { it, tell: () => console.log(JSON.stringify(results)) };
}
