"""The official Python client: what an application sees through it, printed as one JSON object."""

import json
import os

import openai

SUM, ADD = os.environ["PROMPT"], json.loads(os.environ["TOOL"])
MESSAGES = [{"role": "user", "content": SUM}]
BASE_URL = os.environ["BASE_URL"]
client = openai.OpenAI(base_url=BASE_URL, api_key=os.environ["API_KEY"])


def ask(**more):
    return client.chat.completions.create(**{"model": "auto", "messages": MESSAGES, **more})


def chat():
    answer = ask()
    return {"model": answer.model, "text": answer.choices[0].message.content, "tokens": answer.usage.total_tokens}


def stream():
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    return {"model": chunks[-1].model, "text": text.strip(), "tokens": chunks[-1].usage.total_tokens}


def tool():
    call = ask(tools=[ADD]).choices[0].message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "5"}
    answer = ask(messages=[*MESSAGES, {"role": "assistant", "tool_calls": [call.model_dump()]}, result], tools=[ADD])
    called = {"name": call.function.name, "arguments": json.loads(call.function.arguments)}
    return {**called, "then": answer.choices[0].message.content}


def tool_stream():
    name = arguments = ""
    for chunk in ask(tools=[ADD], stream=True):
        for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    return {"name": name, "arguments": json.loads(arguments)}


def error(**more):
    try:
        ask(**more)
    except openai.APIStatusError as refused:
        return {"status": refused.status_code, "code": refused.code}
    return None


def wrong_key():
    try:
        openai.OpenAI(base_url=BASE_URL, api_key="wrong").models.list()
    except openai.AuthenticationError as refused:
        return {"status": refused.status_code, "code": refused.code}
    return None


def broken_stream():
    text = ""
    try:
        for chunk in ask(model="broken", stream=True):
            text += chunk.choices[0].delta.content or ""
    except openai.APIError as broken:
        return {"text": text.strip(), "said": "broke off" in str(broken)}
    return None


print(
    json.dumps(
        {
            "client": openai.__version__,
            "chat": chat(),
            "stream": stream(),
            "tool": tool(),
            "tool_stream": tool_stream(),
            "wrong_key": wrong_key(),
            "unknown_model": error(model="nobody"),
            "bad_request": error(extra_body={"embedrouter": {"polcy": "quality"}}),
            "down": error(model="down"),
            "limited": error(model="limited"),
            "broken_stream": broken_stream(),
            "models": [model.id for model in client.models.list()],
        }
    )
)
