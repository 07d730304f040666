"""LiteLLM's SDK by both of its prefixes, openai/ and dashscope/: whole, streamed, awaited, structured, and refused."""

import asyncio
import json
import os

# Use the prices in the package. Otherwise LiteLLM downloads them when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
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

litellm.suppress_debug_info = True


class Invoice(BaseModel):
    """An invoice."""

    number: str
    total: float


def question(image):
    text = {"type": "text", "text": "Read the invoice as JSON."}
    return [{"role": "user", "content": [image, text]}]


image = {"type": "image_url", "image_url": {"url": data_url(IMAGE)}}
messages = question(image)
gif = question({"type": "image_url", "image_url": {"url": data_url(GIF, "image/gif")}})


def asked(provider, **options):
    given = {"model": f"{provider}/{MODEL}", "api_base": COMPATIBLE_URL, "api_key": KEY}
    return {**given, "messages": messages, **options}


def assert_bill(usage):
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.image_tokens > SMALL_TOKENS


def refusal(expected, **options):
    """The error of a refused call. Any other result ends the program."""
    try:
        answer = litellm.completion(**options)
        if options.get("stream"):
            list(answer)
    except expected as error:
        assert error.message
        return error
    raise AssertionError(f"answered in the place of {expected.__name__}")


def whole(provider):
    answer = litellm.completion(**asked(provider))
    assert answer.choices[0].message.content == EXPECTED_TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert_bill(answer.usage)
    shown(f"{provider}/: image as data URL, usage")

    for form in (
        {"type": "image_url", "image_url": IMAGE_URL},
        {"type": "image_url", "image_url": {"url": data_url(IMAGE), "detail": "high"}},
        {"type": "image_url", "image_url": {"url": data_url(IMAGE), "format": "image/png"}},
    ):
        answer = litellm.completion(**asked(provider, messages=question(form)))
        assert answer.choices[0].message.content == EXPECTED_TEXT
    shown(f"{provider}/: LiteLLM's other forms of an image")

    small = question({**image, "max_pixels": SMALL})
    answer = litellm.completion(**asked(provider, messages=small))
    assert answer.usage.prompt_tokens_details.image_tokens <= SMALL_TOKENS
    shown(f"{provider}/: max_pixels beside image_url makes the image cheaper")

    answer = litellm.completion(
        **asked(provider, temperature=0.01, top_p=0.5, seed=1, stop=["</page>"], n=1),
        presence_penalty=0,
        frequency_penalty=0,
        user="accounting",
        metadata={"page": "1"},
        top_k=1,
        extra_body={"repetition_penalty": 1.0},
    )
    assert answer.choices[0].message.content == EXPECTED_TEXT
    shown(f"{provider}/: sampling parameters, and those of the vendor")

    answer = litellm.completion(**asked(provider, max_tokens=2))
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2
    shown(f"{provider}/: max_tokens cuts the answer off")

    turns = [*messages, litellm.completion(**asked(provider)).choices[0].message, *messages]
    answer = litellm.completion(**asked(provider, messages=turns))
    assert answer.choices[0].message.content == EXPECTED_TEXT
    shown(f"{provider}/: a further image, after the assistant's answer")


def streamed(provider):
    chunks = list(litellm.completion(**asked(provider, stream=True)))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == EXPECTED_TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"
    shown(f"{provider}/: a stream")

    options = {"include_usage": True}
    chunks = list(litellm.completion(**asked(provider, stream=True, stream_options=options)))
    rebuilt = litellm.stream_chunk_builder(chunks, messages=messages)
    assert rebuilt.choices[0].message.content == EXPECTED_TEXT
    assert_bill(chunks[-1].usage)
    shown(f"{provider}/: a stream with usage, gathered by LiteLLM")


def structured(provider):
    invoice = Invoice(**json.loads(EXPECTED_TEXT))
    for form in (Invoice, {"type": "json_object"}):
        answer = litellm.completion(**asked(provider, response_format=form))
        assert Invoice.model_validate_json(answer.choices[0].message.content) == invoice
    shown(f"{provider}/: structured output, json_schema and json_object")


def refused(provider):
    for stream in (False, True):
        way = "streamed" if stream else "whole"
        call = asked(provider, stream=stream)

        error = refusal(litellm.AuthenticationError, **{**call, "api_key": "sk-no-such-key"})
        assert error.status_code == 401
        shown(f"{provider}/: a wrong key, {way}: AuthenticationError")

        error = refusal(litellm.NotFoundError, **{**call, "model": f"{provider}/no-such-model"})
        assert error.status_code == 404 and "no-such-model" in error.message
        shown(f"{provider}/: an unknown model, {way}: NotFoundError")

        error = refusal(litellm.BadRequestError, **{**call, "messages": gif})
        assert error.status_code == 400 and error.code
        shown(f"{provider}/: a GIF, {way}: BadRequestError")

        if GATEWAY_ONLY:
            system = [{"role": "system", "content": "You are a careful reader."}, *messages]
            error = refusal(litellm.BadRequestError, **{**call, "messages": system})
            assert error.code == "invalid_parameter_error" and "system" in error.message
            shown(f"{provider}/: a system message, {way}: BadRequestError")

    if GATEWAY_ONLY:
        function = {"name": "save", "parameters": Invoice.model_json_schema()}
        tools = [{"type": "function", "function": function}]
        error = refusal(litellm.BadRequestError, **asked(provider, tools=tools))
        assert error.code == "invalid_parameter_error" and "/tools" in error.message
        shown(f"{provider}/: a tool: BadRequestError that names tools")


async def awaited(provider):
    answer = await litellm.acompletion(**asked(provider))
    assert answer.choices[0].message.content == EXPECTED_TEXT
    stream = await litellm.acompletion(**asked(provider, stream=True))
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == EXPECTED_TEXT
    shown(f"{provider}/: asynchronous, whole and streamed")


async def main():
    for provider in ("openai", "dashscope"):
        await awaited(provider)


for provider in ("openai", "dashscope"):
    whole(provider)
    streamed(provider)
    structured(provider)
    refused(provider)
asyncio.run(main())
