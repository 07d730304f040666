"""OpenAI's SDK, streaming: with and without usage at the end, and with an early end."""

import asyncio

from openai import AsyncOpenAI, OpenAI

from given import COMPATIBLE_URL, EXPECTED_TEXT, IMAGE, IMAGE_URL, KEY, MODEL, data_url, shown

client = OpenAI(api_key=KEY, base_url=COMPATIBLE_URL)

image = {"type": "image_url", "image_url": {"url": data_url(IMAGE)}}
messages = [{"role": "user", "content": [image, {"type": "text", "text": "Read the text."}]}]


def assert_bill_comes_last(chunks):
    """Only the last chunk has the usage, and each other chunk has a choice."""
    *read, bill = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in read) == EXPECTED_TEXT
    assert [chunk.usage for chunk in read] == [None] * len(read)
    assert bill.choices == []
    assert bill.usage.total_tokens == bill.usage.prompt_tokens + bill.usage.completion_tokens
    assert bill.usage.prompt_tokens_details.image_tokens > 0


# A caller that did not ask for usage does not check whether a chunk has a choice.
text = ""
reasons = []
for chunk in client.chat.completions.create(model=MODEL, messages=messages, stream=True):
    text += chunk.choices[0].delta.content or ""
    reasons.append(chunk.choices[0].finish_reason)
    assert chunk.usage is None
assert text == EXPECTED_TEXT
assert reasons == [None] * (len(reasons) - 1) + ["stop"]
shown("a stream without usage has no chunk without a choice")

by_url = {"type": "image_url", "image_url": {"url": IMAGE_URL}}
stream = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": [by_url]}],
    stream=True,
    stream_options={"include_usage": True},
)
assert_bill_comes_last(list(stream))
shown("a stream with usage, image as URL")

stream = client.chat.completions.create(
    model=MODEL,
    messages=messages,
    stream=True,
    stream_options={"include_usage": False},
)
assert all(chunk.choices and chunk.usage is None for chunk in stream)
shown("include_usage turned off is off")

with client.chat.completions.stream(model=MODEL, messages=messages) as stream:
    deltas = [event.delta for event in stream if event.type == "content.delta"]
    completion = stream.get_final_completion()
assert "".join(deltas) == EXPECTED_TEXT
assert completion.choices[0].message.content == EXPECTED_TEXT
shown("the SDK's own gathering of a stream")

raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=messages, stream=True)
assert raw.headers["content-type"].startswith("text/event-stream")
assert raw.headers["x-request-id"]
chunks = list(raw.parse())
assert len({chunk.id for chunk in chunks}) == 1
shown("the head of a stream, and one id in all its chunks")

stream = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
next(iter(stream))
stream.close()
completion = client.chat.completions.create(model=MODEL, messages=messages)
assert completion.choices[0].message.content == EXPECTED_TEXT
shown("a call after a stream that was left early")


async def main():
    async with AsyncOpenAI(api_key=KEY, base_url=COMPATIBLE_URL) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
        text = ""
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
        assert text == EXPECTED_TEXT
        shown("asynchronous, without usage")

        stream = await client.chat.completions.create(
            model=MODEL,
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
        )
        assert_bill_comes_last([chunk async for chunk in stream])
        shown("asynchronous, with usage")


asyncio.run(main())
