// The Vercel AI SDK: what an application sees through it, printed as one JSON object for each of its three ways here.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, streamText, tool as toolOf } from "ai";
import { readFileSync } from "node:fs";

const { PROMPT, BASE_URL, API_KEY, WAY } = process.env;
const { name, description, parameters } = JSON.parse(process.env.TOOL).function;
const tools = { [name]: toolOf({ description, inputSchema: jsonSchema(parameters) }) };
const ways = {
  chat: (apiKey) => createOpenAI({ baseURL: BASE_URL, apiKey }).chat,
  responses: (apiKey) => createOpenAI({ baseURL: BASE_URL, apiKey }).responses,
  compatible: (apiKey) => createOpenAICompatible({ name: "router", baseURL: BASE_URL, apiKey, includeUsage: true }),
};
const settings = (model = "auto", apiKey = API_KEY, more = {}) =>
  ({ model: ways[WAY](apiKey)(model), prompt: PROMPT, maxRetries: 0, ...more });

async function chat() {
  const answer = await generateText(settings());
  return { model: answer.response.modelId, text: answer.text, tokens: answer.usage.totalTokens };
}

async function streamed(model, more) {
  let text = "", error, calls = [];
  const stream = streamText({ ...settings(model, API_KEY, more), onError: () => {} });
  for await (const part of stream.fullStream ?? stream.stream) {
    if (part.type === "text-delta") text += part.text ?? part.delta;
    if (part.type === "tool-call") calls.push({ name: part.toolName, arguments: part.input });
    if (part.type === "error") error = part.error;
  }
  return { stream, text, error, calls };
}

async function stream() {
  const { stream, text, error } = await streamed();
  if (error) throw error;
  return { model: (await stream.response).modelId, text: text.trim(), tokens: (await stream.usage).totalTokens };
}

async function tool() {
  const first = await generateText(settings("auto", API_KEY, { tools }));
  const call = first.toolCalls[0];
  const output = { type: "text", value: "5" };
  const result = { type: "tool-result", toolCallId: call.toolCallId, toolName: call.toolName, output };
  const messages = [
    { role: "user", content: PROMPT },
    ...first.response.messages,
    { role: "tool", content: [result] },
  ];
  const then = await generateText({ ...settings("auto", API_KEY, { tools }), prompt: undefined, messages });
  return { name: call.toolName, arguments: call.input, then: then.text };
}

async function error(model, apiKey) {
  try {
    await generateText(settings(model, apiKey));
  } catch (refused) {
    return { status: refused.statusCode, code: JSON.parse(refused.responseBody).error.code };
  }
  return null;
}

async function broken_stream() {
  const { text, error } = await streamed("broken");
  return { text: text.trim(), said: JSON.stringify(error?.message ?? error ?? "").includes("broke off") };
}

console.log(JSON.stringify({
  client: JSON.parse(readFileSync("node_modules/ai/package.json")).version,
  chat: await chat(),
  stream: await stream(),
  tool: await tool(),
  tool_stream: (await streamed("auto", { tools })).calls[0],
  wrong_key: await error("auto", "wrong"),
  unknown_model: await error("nobody"),
  down: await error("down"),
  limited: await error("limited"),
  broken_stream: await broken_stream(),
}));
