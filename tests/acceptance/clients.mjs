// The JavaScript clients of others against a server: node clients.mjs URL, with their packages in
// the folder NODE_MODULES. Prints one line for each: what was said, whole and streamed.
import { createRequire } from "node:module";
import assert from "node:assert";

const url = process.argv[2];
const require = createRequire(process.env.NODE_MODULES + "/");
const messages = [{ role: "user", content: "Name three colours." }];
const how = { model: "any", messages, temperature: 0, max_tokens: 16 };

async function openai() {
  const { default: OpenAI } = require("openai");
  const client = new OpenAI({ baseURL: url + "/v1", apiKey: "none" });
  const whole = await client.chat.completions.create(how);
  let said = "";
  let last;
  const parts = await client.chat.completions.create({ ...how, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of parts) {
    said += chunk.choices[0]?.delta?.content ?? "";
    last = chunk;
  }
  assert.equal(said, whole.choices[0].message.content);
  assert.equal(last.usage.completion_tokens, whole.usage.completion_tokens);
  const runner = client.chat.completions.stream({ ...how });
  assert.equal(await runner.finalContent(), said);
  const response = await client.responses.create({ model: "any", input: "Name three colours.", temperature: 0, max_output_tokens: 16 });
  let streamed = "";
  const events = client.responses.stream({ model: "any", input: "Name three colours.", temperature: 0, max_output_tokens: 16 });
  for await (const event of events) if (event.type === "response.output_text.delta") streamed += event.delta;
  assert.equal(streamed, response.output_text);
  const schema = { type: "json_schema", json_schema: { name: "c", strict: true, schema: { type: "object", properties: { colour: { enum: ["red", "blue"] } }, required: ["colour"], additionalProperties: false } } };
  const kept = await client.chat.completions.create({ ...how, max_tokens: 40, response_format: schema });
  assert.ok(["red", "blue"].includes(JSON.parse(kept.choices[0].message.content).colour));
  await assert.rejects(client.chat.completions.create({ ...how, temperature: -1 }), OpenAI.BadRequestError);
  assert.ok((await client.models.list()).data.length);
  console.log("openai", JSON.stringify(said));
}

async function anthropic() {
  const { default: Anthropic } = require("@anthropic-ai/sdk");
  const client = new Anthropic({ baseURL: url, apiKey: "none" });
  const whole = await client.messages.create(how);
  const stream = client.messages.stream(how);
  let said = "";
  stream.on("text", (text) => { said += text; });
  const final = await stream.finalMessage();
  assert.equal(said, whole.content[0].text);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
  assert.ok((await client.messages.countTokens({ model: "any", messages })).input_tokens > 0);
  await assert.rejects(client.messages.create({ ...how, max_tokens: "x" }), Anthropic.BadRequestError);
  console.log("anthropic", JSON.stringify(said));
}

async function aiSdk() {
  const { generateText, streamText, generateObject, jsonSchema } = require("ai");
  const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
  const { createOpenAI } = require("@ai-sdk/openai");
  const compatible = createOpenAICompatible({ name: "local", baseURL: url + "/v1", apiKey: "none", includeUsage: true, supportsStructuredOutputs: true });
  const ask = { prompt: "Name three colours.", temperature: 0, maxOutputTokens: 16 };
  for (const model of [compatible("any"), createOpenAI({ baseURL: url + "/v1", apiKey: "none" })("any")]) {
    const whole = await generateText({ model, ...ask });
    const stream = streamText({ model, ...ask });
    let said = "";
    for await (const text of stream.textStream) said += text;
    assert.equal(said, whole.text);
    assert.ok((await stream.usage).outputTokens > 0);
  }
  const schema = jsonSchema({ type: "object", properties: { colour: { enum: ["red", "blue"] } }, required: ["colour"], additionalProperties: false });
  const made = await generateObject({ model: compatible("any"), schema, ...ask, maxOutputTokens: 40 });
  assert.ok(["red", "blue"].includes(made.object.colour));
  console.log("ai", JSON.stringify(made.object));
}

let failed = 0;
for (const run of [openai, anthropic, aiSdk]) {
  try {
    await run();
  } catch (error) {
    failed = 1;
    console.log(run.name, "FAILED", error?.message, error?.responseBody ?? "");
  }
}
process.exit(failed);
