"""DashScope's SDK, the client of its version 2, over both protocols.

It refuses enable_rotate by itself and returns only text. So the ocr_result of tasks is tested with the older classes
(dashscope_tasks.py).
"""

import asyncio
from itertools import pairwise

import dashscope

from given import (
    COMPATIBLE_URL,
    EXPECTED_TEXT,
    IMAGE,
    IMAGE_URL,
    KEY,
    MODEL,
    NATIVE_URL,
    SMALL,
    SMALL_TOKENS,
    data_url,
    shown,
)


def question(image, **limits):
    image = {"type": "image", "url": image, **limits}
    return [{"role": "user", "content": [image, {"type": "text", "text": "Read the text."}]}]


def assert_grows(texts):
    texts = list(texts)
    assert len(texts) > 1 and texts[-1] == EXPECTED_TEXT
    assert all(after.startswith(before) for before, after in pairwise(texts))


client = dashscope.Client(api_key=KEY, base_url=NATIVE_URL)

for way, image in {
    "as URL": IMAGE_URL,
    "as data URL": data_url(IMAGE),
    "as a path": IMAGE,
    "as file://": f"file://{IMAGE}",
}.items():
    response = client.multimodal.chat.create(model=MODEL, messages=question(image))
    assert response.output_text == EXPECTED_TEXT
    assert response.request_id and response.headers["x-request-id"]
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    shown(f"multimodal.chat, image {way}")

response = client.chat.completions.create(
    model=MODEL, messages=question(data_url(IMAGE), max_pixels=SMALL)
)
assert response.output_text == EXPECTED_TEXT
assert response.usage.image_tokens <= SMALL_TOKENS
shown("chat.completions finds the way by the image; max_pixels makes it cheaper")

response = client.multimodal.chat.create(
    model=MODEL,
    messages=question(data_url(IMAGE)),
    parameters={"ocr_options": {"task": "table_parsing"}},
)
assert "<table" in response.output_text
shown("a built-in task")

stream = client.multimodal.chat.create(model=MODEL, messages=question(IMAGE_URL), stream=True)
assert "".join(stream.text_stream) == EXPECTED_TEXT
shown("a stream, the text in pieces")

stream = client.multimodal.chat.create(
    model=MODEL, messages=question(IMAGE_URL), stream=True, incremental_output=False
)
assert_grows(stream.text_stream)
shown("a stream, the text so far, gathered by the SDK")

# Only this call of an SDK sends incremental_output=false.
stream = client.multimodal.chat.create(
    model=MODEL,
    messages=question(IMAGE_URL),
    stream=True,
    parameters={"incremental_output": False},
)
assert_grows(stream.text_stream)
shown("a stream, the text so far, gathered by the server")

final = client.multimodal.chat.create(
    model=MODEL, messages=question(data_url(IMAGE)), stream=True
).get_final_message()
assert final.output_text == EXPECTED_TEXT
assert final.choices[0].finish_reason == "stop"
assert final.usage.image_tokens > 0
shown("a stream's final message, with its usage")

compatible = dashscope.Client(api_key=KEY, base_url=COMPATIBLE_URL, protocol="openai")
response = compatible.chat.completions.create(model=MODEL, messages=question(data_url(IMAGE)))
assert response.output_text == EXPECTED_TEXT
final = compatible.chat.completions.create(
    model=MODEL, messages=question(IMAGE_URL), stream=True
).get_final_message()
assert final.output_text == EXPECTED_TEXT
assert final.usage.total_tokens > 0
shown("the compatible protocol, at once and streamed")


async def main():
    async with dashscope.AsyncClient(api_key=KEY, base_url=NATIVE_URL) as client:
        response = await client.multimodal.chat.create(model=MODEL, messages=question(IMAGE))
        assert response.output_text == EXPECTED_TEXT
        stream = await client.multimodal.chat.create(
            model=MODEL, messages=question(IMAGE_URL), stream=True
        )
        assert "".join([piece async for piece in stream.text_stream]) == EXPECTED_TEXT
        shown("asynchronous, at once and streamed")


asyncio.run(main())
