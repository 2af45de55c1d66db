// The official JavaScript client: what an application sees through it, printed as one JSON object.
import OpenAI from "openai";
import { readFileSync } from "node:fs";

const { PROMPT, BASE_URL, API_KEY } = process.env;
const ADD = JSON.parse(process.env.TOOL);
const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const messages = [{ role: "user", content: PROMPT }];
const ask = (more = {}) => client.chat.completions.create({ model: "auto", messages, ...more });

async function chat() {
  const answer = await ask();
  return { model: answer.model, text: answer.choices[0].message.content, tokens: answer.usage.total_tokens };
}

async function stream() {
  let text = "", last;
  for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta.content ?? "";
    last = chunk;
  }
  return { model: last.model, text: text.trim(), tokens: last.usage.total_tokens };
}

async function tool() {
  const message = (await ask({ tools: [ADD] })).choices[0].message;
  const call = message.tool_calls[0];
  const result = { role: "tool", tool_call_id: call.id, content: "5" };
  const then = await ask({ messages: [...messages, message, result], tools: [ADD] });
  const called = { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
  return { ...called, then: then.choices[0].message.content };
}

async function tool_stream() {
  const runner = client.chat.completions.stream({ model: "auto", messages, tools: [ADD] });
  const call = (await runner.finalMessage()).tool_calls[0];
  return { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
}

async function error(call) {
  try {
    await call();
  } catch (refused) {
    return { status: refused.status, code: refused.code };
  }
  return null;
}

async function broken_stream() {
  let text = "";
  try {
    for await (const chunk of await ask({ model: "broken", stream: true })) text += chunk.choices[0].delta.content ?? "";
  } catch (broken) {
    return { text: text.trim(), said: String(broken.message).includes("broke off") };
  }
  return null;
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);
console.log(JSON.stringify({
  client: JSON.parse(readFileSync("node_modules/openai/package.json")).version,
  chat: await chat(),
  stream: await stream(),
  tool: await tool(),
  tool_stream: await tool_stream(),
  wrong_key: await error(() => new OpenAI({ baseURL: BASE_URL, apiKey: "wrong" }).models.list()),
  unknown_model: await error(() => ask({ model: "nobody" })),
  bad_request: await error(() => ask({ embedrouter: { polcy: "quality" } })),
  down: await error(() => ask({ model: "down" })),
  limited: await error(() => ask({ model: "limited" })),
  broken_stream: await broken_stream(),
  models,
}));
