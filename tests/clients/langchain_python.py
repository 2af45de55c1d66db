"""LangChain for Python: what an application sees through it, printed as one JSON object."""

import json
import os

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, __version__

SUM, ADD = os.environ["PROMPT"], json.loads(os.environ["TOOL"])


def llm(model="auto", key=os.environ["API_KEY"], **more):
    return ChatOpenAI(model=model, base_url=os.environ["BASE_URL"], api_key=key, **more)


def seen(message):
    model, tokens = message.response_metadata["model_name"], message.usage_metadata["total_tokens"]
    return {"model": model, "text": message.content.strip(), "tokens": tokens}


def whole(chunks):
    message = None
    for chunk in chunks:
        message = chunk if message is None else message + chunk
    return message


def tool():
    asked, bound = [HumanMessage(SUM)], llm().bind_tools([ADD])
    call = (answer := bound.invoke(asked)).tool_calls[0]
    then = bound.invoke([*asked, answer, ToolMessage("5", tool_call_id=call["id"])])
    return {"name": call["name"], "arguments": call["args"], "then": then.content}


def tool_stream():
    call = whole(llm().bind_tools([ADD]).stream(SUM)).tool_calls[0]
    return {"name": call["name"], "arguments": call["args"]}


def error(**more):
    try:
        llm(**more).invoke(SUM)
    except openai.APIStatusError as refused:
        return {"status": refused.status_code, "code": refused.code}
    return None


def broken_stream():
    text = ""
    try:
        for chunk in llm("broken").stream(SUM):
            text += chunk.content
    except openai.APIError as broken:
        return {"text": text.strip(), "said": "broke off" in str(broken)}
    return None


print(
    json.dumps(
        {
            "client": __version__,
            "chat": seen(llm().invoke(SUM)),
            "stream": seen(whole(llm(stream_usage=True).stream(SUM))),
            "tool": tool(),
            "tool_stream": tool_stream(),
            "wrong_key": error(key="wrong"),
            "unknown_model": error(model="nobody"),
            "bad_request": error(extra_body={"embedrouter": {"polcy": "quality"}}),
            "down": error(model="down"),
            "limited": error(model="limited"),
            "broken_stream": broken_stream(),
        }
    )
)
