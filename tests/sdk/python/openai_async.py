"""OpenAI's SDK, asynchronous: one client, several calls at once."""

import asyncio

from openai import AsyncOpenAI

from given import COMPATIBLE_URL, EXPECTED_TEXT, IMAGE, IMAGE_URL, KEY, MODEL, data_url, shown


async def main():
    async with AsyncOpenAI(api_key=KEY, base_url=COMPATIBLE_URL) as client:
        completion = await client.chat.completions.create(
            model=MODEL,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image_url",
                            "image_url": {"url": IMAGE_URL},
                            "min_pixels": 32 * 32 * 3,
                            "max_pixels": 32 * 32 * 8192,
                        },
                        {"type": "text", "text": "Read all the text in the image."},
                    ],
                }
            ],
        )
        assert completion.choices[0].message.content == EXPECTED_TEXT
        shown("image as URL")

        image = {"type": "image_url", "image_url": {"url": data_url(IMAGE)}}
        completions = await asyncio.gather(
            *(
                client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": [image]}],
                    max_tokens=1000 + number,
                    extra_body={"top_k": 1, "repetition_penalty": 1.0},
                )
                for number in range(4)
            )
        )
        assert [c.choices[0].message.content for c in completions] == [EXPECTED_TEXT] * 4
        assert len({completion.id for completion in completions}) == 4
        assert all(completion.usage.total_tokens > 0 for completion in completions)
        shown("four calls at once, image as data URL, parameters of extra_body")

        raw = await client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": [image]}],
        )
        assert raw.parse().choices[0].message.content == EXPECTED_TEXT
        assert raw.headers["x-request-id"]
        shown("the raw response and its request id")

        assert MODEL in [model.id async for model in client.models.list()]
        shown("the list of models")


asyncio.run(main())
