// An application made with Vercel's AI SDK, told as JSON on standard output.
// Arguments: its major version, and what to do.
import { createRequire } from "node:module";

// The SDK lies where `make clients` put it, not beside this file.
const require = createRequire(`${process.env.CLIENTS}/package.json`);
const PROVIDERS = { 5: "ai-sdk-anthropic-2", 6: "ai-sdk-anthropic-3", 7: "ai-sdk-anthropic-4" };
const [major, ...chosen] = process.argv.slice(2);
const { generateText, generateObject, streamText, tool } = require(`ai-${major}`);
const { createAnthropic } = require(PROVIDERS[major]);
const { z } = require("zod");

const provider = createAnthropic({ baseURL: `${process.env.ANTHROPIC_BASE_URL}/v1`, apiKey: process.env.ANTHROPIC_AUTH_TOKEN });
const asked = { model: provider("any-name"), prompt: "Say hello.", maxOutputTokens: 100, maxRetries: 0 };
const inputSchema = z.object({ room: z.enum(["kitchen", "hall"]), on: z.boolean() });
const tools = { switch_light: tool({ description: "Switch a light.", inputSchema }) };
const forced = { ...asked, tools, toolChoice: { type: "tool", toolName: "switch_light" } };

// Errors of a stream are told to a callback, not thrown.
const onError = ({ error }) => {
  throw error;
};
async function stream(options) {
  const result = streamText({ ...options, onError });
  const parts = [];
  for await (const part of result.textStream) parts.push(part);
  const told = { text: parts.join("") };
  for (const name of ["finishReason", "usage", "toolCalls", "sources"]) told[name] = await result[name];
  return told;
}
const tell = ({ text, finishReason, usage, toolCalls, sources }) => ({
  text,
  finishReason,
  usage,
  inputs: toolCalls.map(({ toolName, input }) => [toolName, input]),
  sources: sources.map(({ title }) => title),
});

const file = { type: "file", mediaType: "text/plain", data: new TextEncoder().encode("The sky is green."), filename: "sky.txt" };
const providerOptions = { anthropic: { citations: { enabled: true } } };
const content = [{ ...file, providerOptions }, { type: "text", text: "Quote it." }];
const cited = { ...asked, prompt: undefined, messages: [{ role: "user", content }] };

const ways = {
  generated: async () => tell(await generateText(asked)),
  streamed: async () => tell(await stream(asked)),
  called: async () => tell(await generateText(forced)),
  calledInStream: async () => tell(await stream(forced)),
  cited: async () => tell(await generateText(cited)),
  citedInStream: async () => tell(await stream(cited)),
  object: async () => (await generateObject({ ...asked, schema: inputSchema })).object,
};
const facts = {};
for (const way of chosen) facts[way] = await ways[way]();
console.log(JSON.stringify(facts));
