"""LangChain's ChatOpenAI: whole, streamed, awaited, in batches, structured, and refused."""

import asyncio
import base64
import json
import os
from pathlib import Path

# Without this, an environment with LangSmith tracing would send it the test's images.
os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from given import (
    COMPATIBLE_URL,
    EXPECTED_TEXT,
    GATEWAY_ONLY,
    GIF,
    IMAGE,
    IMAGE_URL,
    KEY,
    MODEL,
    SMALL,
    SMALL_TOKENS,
    data_url,
    shown,
)


class Invoice(BaseModel):
    """An invoice."""

    number: str
    total: float


def question(image):
    return [HumanMessage(content=[image, {"type": "text", "text": "Read the invoice as JSON."}])]


def chat(**options):
    return ChatOpenAI(model=MODEL, api_key=KEY, base_url=COMPATIBLE_URL, **options)


def assert_bill(usage):
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens"] > 0 and usage["output_tokens"] > 0


llm = chat()
image = {"type": "image_url", "image_url": {"url": data_url(IMAGE)}}
messages = question(image)

answer = llm.invoke(messages)
assert answer.content == EXPECTED_TEXT
assert answer.response_metadata["finish_reason"] == "stop"
assert answer.response_metadata["model_name"] == MODEL
assert_bill(answer.usage_metadata)
details = answer.response_metadata["token_usage"]["prompt_tokens_details"]
assert details["image_tokens"] > SMALL_TOKENS
shown("image as data URL, usage")

for way, block in {
    "data": {"base64": base64.b64encode(Path(IMAGE).read_bytes()).decode(), "mime_type": "image/png"},
    "URL": {"url": IMAGE_URL},
}.items():
    assert llm.invoke(question({"type": "image", **block})).content == EXPECTED_TEXT
    shown(f"LangChain's own block of an image, by {way}")

small = llm.invoke(question({**image, "max_pixels": SMALL}))
details = small.response_metadata["token_usage"]["prompt_tokens_details"]
assert details["image_tokens"] <= SMALL_TOKENS
shown("max_pixels beside image_url makes the image cheaper")

detailed = {"type": "image_url", "image_url": {"url": data_url(IMAGE), "detail": "high"}}
assert llm.invoke(question(detailed)).content == EXPECTED_TEXT
shown("detail beside the address")

sampled = chat(
    temperature=0.01,
    top_p=0.5,
    seed=1,
    n=1,
    presence_penalty=0,
    frequency_penalty=0,
    stop_sequences=["</page>"],
    extra_body={"top_k": 1, "repetition_penalty": 1.0},
)
assert sampled.invoke(messages).content == EXPECTED_TEXT
shown("sampling parameters, those of OpenAI and those of extra_body")

short = chat(max_tokens=2).invoke(messages)
assert short.response_metadata["finish_reason"] == "length"
assert short.usage_metadata["output_tokens"] == 2
shown("max_tokens cuts the answer off")

assert "".join(chunk.content for chunk in llm.stream(messages)) == EXPECTED_TEXT
shown("a stream")

gathered = None
for chunk in chat(stream_usage=True).stream(messages):
    gathered = chunk if gathered is None else gathered + chunk
assert gathered.content == EXPECTED_TEXT
assert_bill(gathered.usage_metadata)
shown("a stream with usage, gathered by adding its chunks")

assert [answer.content for answer in llm.batch([messages, messages])] == [EXPECTED_TEXT] * 2
shown("a batch")

assert llm.invoke([*messages, answer, *messages]).content == EXPECTED_TEXT
shown("a further image, after the assistant's answer")

invoice = Invoice(**json.loads(EXPECTED_TEXT))
assert llm.with_structured_output(Invoice).invoke(messages) == invoice
raw = llm.with_structured_output(Invoice, strict=True, include_raw=True).invoke(messages)
assert raw["parsed"] == invoice and raw["parsing_error"] is None
assert llm.with_structured_output(Invoice, method="json_mode").invoke(messages) == invoice
assert list(llm.with_structured_output(Invoice).stream(messages))[-1] == invoice
shown("structured output by response_format: json_schema, strict, json_mode, streamed")


async def main():
    assert (await llm.ainvoke(messages)).content == EXPECTED_TEXT
    assert "".join([chunk.content async for chunk in llm.astream(messages)]) == EXPECTED_TEXT
    shown("asynchronous, whole and streamed")


asyncio.run(main())


def refusal(expected, call):
    """The error of a refused call. Any other result ends the program."""
    try:
        call()
    except expected as error:
        assert error.request_id and error.body["message"]
        return error
    raise AssertionError(f"answered in the place of {expected.__name__}")


gif = question({"type": "image_url", "image_url": {"url": data_url(GIF, "image/gif")}})
for way, ask in {
    "whole": lambda llm, messages: llm.invoke(messages),
    "streamed": lambda llm, messages: list(llm.stream(messages)),
}.items():
    stranger = ChatOpenAI(model=MODEL, api_key="sk-no-such-key", base_url=COMPATIBLE_URL)
    error = refusal(openai.AuthenticationError, lambda: ask(stranger, messages))
    assert error.code == "invalid_api_key"
    shown(f"a wrong key, {way}: AuthenticationError")

    unknown = ChatOpenAI(model="no-such-model", api_key=KEY, base_url=COMPATIBLE_URL)
    error = refusal(openai.NotFoundError, lambda: ask(unknown, messages))
    assert error.code == "model_not_found"
    shown(f"an unknown model, {way}: NotFoundError")

    error = refusal(openai.BadRequestError, lambda: ask(llm, gif))
    assert error.code
    shown(f"a GIF, {way}: BadRequestError")

    if GATEWAY_ONLY:
        system = [SystemMessage("You are a careful reader."), *messages]
        error = refusal(openai.BadRequestError, lambda: ask(llm, system))
        assert error.code == "invalid_parameter_error" and error.param == "/messages/0"
        assert error.body["gateway_code"] == "invalid_option"
        shown(f"a system message, {way}: BadRequestError")

if GATEWAY_ONLY:
    by_tool = llm.with_structured_output(Invoice, method="function_calling")
    error = refusal(openai.BadRequestError, lambda: by_tool.invoke(messages))
    assert error.param == "/tools" and error.body["gateway_code"] == "invalid_option"
    shown("structured output by a tool: BadRequestError that names tools")
