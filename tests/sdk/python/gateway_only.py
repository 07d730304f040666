"""A request that the gateway refuses and the emulator accepts: a system message.

Qwen-OCR has a system message of its own and supports no other. It is not documented whether it refuses or ignores one.
The gateway refuses it, because a caller would not notice that it was ignored.
"""

import os
import sys

import dashscope
import openai
from openai import OpenAI

from given import COMPATIBLE_URL, IMAGE, KEY, MODEL, NATIVE_URL, data_url, shown

if os.environ.get("GATEWAY_ONLY") != "1":
    sys.exit("this program is for the gateway only; say so with GATEWAY_ONLY=1")

client = OpenAI(api_key=KEY, base_url=COMPATIBLE_URL)
for stream in (False, True):
    try:
        client.chat.completions.create(
            model=MODEL,
            messages=[
                {"role": "system", "content": "You are a careful reader."},
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": data_url(IMAGE)}}],
                },
            ],
            stream=stream,
        )
    except openai.BadRequestError as error:
        assert error.status_code == 400
        assert "system" in error.message
    else:
        raise AssertionError("a system message was let pass")
shown("a system message, OpenAI's SDK: BadRequestError")

dashscope.base_http_api_url = NATIVE_URL
response = dashscope.MultiModalConversation.call(
    api_key=KEY,
    model=MODEL,
    messages=[
        {"role": "system", "content": [{"text": "You are a careful reader."}]},
        {"role": "user", "content": [{"image": data_url(IMAGE)}]},
    ],
)
assert response.status_code == 400, response
assert response.code == "InvalidParameter"
assert "system" in response.message
shown("a system message, DashScope's SDK: 400 InvalidParameter")
