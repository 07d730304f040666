"""DashScope's SDK, asynchronous: the same call, awaited, and several at once."""

import asyncio

import dashscope
from dashscope import AioMultiModalConversation

from given import EXPECTED_TEXT, IMAGE, IMAGE_URL, KEY, MODEL, NATIVE_URL, data_url, shown

dashscope.base_http_api_url = NATIVE_URL


async def read(image, **parameters):
    response = await AioMultiModalConversation.call(
        api_key=KEY,
        model=MODEL,
        messages=[{"role": "user", "content": [{"image": image, "enable_rotate": False}]}],
        **parameters,
    )
    assert response.status_code == 200, response
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    return response.output.choices[0].message.content[0]


async def main():
    for way, image in {
        "as URL": IMAGE_URL,
        "as data URL": data_url(IMAGE),
        "as a path": IMAGE,
        "as file://": f"file://{IMAGE}",
    }.items():
        assert (await read(image))["text"] == EXPECTED_TEXT
        shown(f"image {way}")

    answers = await asyncio.gather(*(read(data_url(IMAGE), max_tokens=1000 + n) for n in range(4)))
    assert [answer["text"] for answer in answers] == [EXPECTED_TEXT] * 4
    shown("four calls at once")

    answer = await read(data_url(IMAGE), ocr_options={"task": "advanced_recognition"})
    assert answer["ocr_result"]["words_info"]
    shown("a built-in task")

    await dashscope.close_shared_aio_session()


asyncio.run(main())
