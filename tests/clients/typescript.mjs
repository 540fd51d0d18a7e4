// An application made with the TypeScript SDK, told as JSON on standard output.
import { createRequire } from "node:module";

// The SDK lies where `make clients` put it, not beside this file.
const require = createRequire(`${process.env.CLIENTS}/package.json`);
const { default: Anthropic } = require("@anthropic-ai/sdk");

const client = new Anthropic({ maxRetries: 0 });
const asked = {
  model: "any-name",
  max_tokens: 200,
  system: "You are terse.",
  messages: [{ role: "user", content: "Say hello." }],
};
const forced = {
  ...asked,
  tools: [
    {
      name: "switch_light",
      description: "Switch a light.",
      input_schema: {
        type: "object",
        properties: { room: { enum: ["kitchen", "hall"] }, on: { type: "boolean" } },
        required: ["room", "on"],
        additionalProperties: false,
      },
    },
  ],
  tool_choice: { type: "tool", name: "switch_light" },
};

const created = await client.messages.create(asked);
const stream = client.messages.stream(asked);
let seen = "";
stream.on("text", (text) => (seen += text));
const streamed = await stream.finalMessage();
const counted = await client.messages.countTokens({ model: asked.model, system: asked.system, messages: asked.messages });
const called = await client.messages.create(forced);
const calledInStream = await client.messages.stream(forced).finalMessage();
console.log(JSON.stringify({ created, streamed, seen, counted, called, calledInStream }));
