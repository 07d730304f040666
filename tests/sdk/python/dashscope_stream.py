"""DashScope's SDK, streaming: the text in pieces (incremental_output) and the text so far."""

import asyncio
from itertools import pairwise

import dashscope
from dashscope import AioMultiModalConversation, MultiModalConversation

from given import EXPECTED_TEXT, IMAGE, IMAGE_URL, KEY, MODEL, NATIVE_URL, data_url, shown

dashscope.base_http_api_url = NATIVE_URL


def request(image):
    return {
        "api_key": KEY,
        "model": MODEL,
        "messages": [{"role": "user", "content": [{"image": image}, {"text": "Read the text."}]}],
        "stream": True,
    }


class Heard:
    """The events of a stream. Each is copied at once, because the SDK continues to write into it."""

    def __init__(self):
        self.texts, self.reasons, self.outputs = [], [], []

    def take(self, response):
        assert response.status_code == 200, response
        choice = response.output.choices[0]
        # The last event of an incremental stream may have no content.
        self.texts.append(choice.message.content[0]["text"] if choice.message.content else "")
        self.reasons.append(choice.finish_reason)
        self.outputs.append(response.usage.output_tokens)
        assert response.usage.image_tokens > 0

    def assert_whole(self, text):
        assert text == EXPECTED_TEXT
        assert len(self.texts) > 1
        assert self.reasons.index("stop") == len(self.reasons) - 1
        assert self.outputs == sorted(self.outputs)


def assert_pieces(heard):
    heard.assert_whole("".join(heard.texts))


def assert_text_so_far(heard):
    heard.assert_whole(heard.texts[-1])
    assert all(after.startswith(before) for before, after in pairwise(heard.texts))


WAYS = (
    ("in pieces", {"incremental_output": True}, assert_pieces),
    ("the text so far", {"incremental_output": False}, assert_text_so_far),
    ("the text so far, which is the default", {}, assert_text_so_far),
)

for way, parameters, assert_told in WAYS:
    heard = Heard()
    for response in MultiModalConversation.call(**request(IMAGE_URL), **parameters):
        heard.take(response)
    assert_told(heard)
    shown(f"{way}, image as URL")

heard = Heard()
for response in MultiModalConversation.call(**request(IMAGE), incremental_output=True):
    heard.take(response)
assert_pieces(heard)
shown("in pieces, image as a path")

stream = MultiModalConversation.call(**request(data_url(IMAGE)), incremental_output=True)
next(stream)
stream.close()
heard = Heard()
for response in MultiModalConversation.call(**request(data_url(IMAGE)), incremental_output=True):
    heard.take(response)
assert_pieces(heard)
shown("a stream after one that was left early")


async def main():
    for way, parameters, assert_told in WAYS:
        heard = Heard()
        stream = await AioMultiModalConversation.call(**request(data_url(IMAGE)), **parameters)
        async for response in stream:
            heard.take(response)
        assert_told(heard)
        shown(f"{way}, asynchronous, image as data URL")
    await dashscope.close_shared_aio_session()


asyncio.run(main())
