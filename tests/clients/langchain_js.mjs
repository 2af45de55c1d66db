// LangChain for JavaScript: what an application sees through it, printed as one JSON object.
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { ChatOpenAI } from "@langchain/openai";
import { readFileSync } from "node:fs";

const { PROMPT, BASE_URL, API_KEY } = process.env;
const ADD = JSON.parse(process.env.TOOL);
const llm = (model = "auto", apiKey = API_KEY, more = {}) =>
  new ChatOpenAI({ model, apiKey, maxRetries: 0, configuration: { baseURL: BASE_URL }, ...more });

const seen = (message) => ({
  model: message.response_metadata.model_name,
  text: message.content.trim(),
  tokens: message.usage_metadata.total_tokens,
});

async function whole(chunks) {
  let message;
  for await (const chunk of await chunks) message = message ? message.concat(chunk) : chunk;
  return message;
}

async function tool() {
  const asked = [new HumanMessage(PROMPT)], bound = llm().bindTools([ADD]);
  const answer = await bound.invoke(asked);
  const call = answer.tool_calls[0];
  const then = await bound.invoke([...asked, answer, new ToolMessage({ content: "5", tool_call_id: call.id })]);
  return { name: call.name, arguments: call.args, then: then.content };
}

async function tool_stream() {
  const call = (await whole(llm().bindTools([ADD]).stream(PROMPT))).tool_calls[0];
  return { name: call.name, arguments: call.args };
}

async function error(model, apiKey, more) {
  try {
    await llm(model, apiKey, more).invoke(PROMPT);
  } catch (refused) {
    return { status: refused.status, code: refused.code };
  }
  return null;
}

async function broken_stream() {
  let text = "";
  try {
    for await (const chunk of await llm("broken").stream(PROMPT)) text += chunk.content;
  } catch (broken) {
    return { text: text.trim(), said: String(broken.message).includes("broke off") };
  }
  return null;
}

console.log(JSON.stringify({
  client: JSON.parse(readFileSync("node_modules/@langchain/openai/package.json")).version,
  chat: seen(await llm().invoke(PROMPT)),
  stream: seen(await whole(llm().stream(PROMPT))),
  tool: await tool(),
  tool_stream: await tool_stream(),
  wrong_key: await error("auto", "wrong"),
  unknown_model: await error("nobody"),
  bad_request: await error("auto", API_KEY, { modelKwargs: { embedrouter: { polcy: "quality" } } }),
  down: await error("down"),
  limited: await error("limited"),
  broken_stream: await broken_stream(),
}));
