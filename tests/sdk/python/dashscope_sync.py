"""DashScope's SDK, synchronous: an image in each form that the SDK supports."""

import dashscope

from given import (
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

dashscope.base_http_api_url = NATIVE_URL


def read(*content, **parameters):
    response = dashscope.MultiModalConversation.call(
        api_key=KEY,
        model=MODEL,
        messages=[{"role": "user", "content": list(content)}],
        **parameters,
    )
    assert response.status_code == 200, response
    assert response.request_id
    return response


messages = [
    {
        "role": "user",
        "content": [
            {
                "image": IMAGE_URL,
                "min_pixels": 32 * 32 * 3,
                "max_pixels": 32 * 32 * 8192,
                "enable_rotate": False,
            },
            {"text": "Read all the text in the image: 发票 №1 – €5."},
        ],
    }
]
response = dashscope.MultiModalConversation.call(api_key=KEY, model=MODEL, messages=messages)
assert response.status_code == 200, response
assert response["output"]["choices"][0]["message"].content[0]["text"] == EXPECTED_TEXT
assert response.output.choices[0].message.role == "assistant"
assert response.output.choices[0].finish_reason == "stop"
shown("image as URL, with a text")

for way, image in {
    "as data URL": data_url(IMAGE),
    "as a path": IMAGE,
    "as file://": f"file://{IMAGE}",
}.items():
    response = read({"image": image})
    assert response.output.choices[0].message.content[0]["text"] == EXPECTED_TEXT
    shown(f"image {way}, the model's own prompt")

usage = response.usage
assert usage.total_tokens == usage.input_tokens + usage.output_tokens
assert SMALL_TOKENS < usage.image_tokens < usage.input_tokens
shown("usage, the image's tokens among the input's")

response = read({"image": data_url(IMAGE), "max_pixels": SMALL})
assert response.usage.image_tokens <= SMALL_TOKENS
shown("max_pixels makes the image cheaper")

response = read({"image": data_url(IMAGE), "enable_rotate": True})
assert response.output.choices[0].message.content[0]["text"] == EXPECTED_TEXT
shown("enable_rotate")

response = read({"image": IMAGE_URL}, {"image": IMAGE}, {"text": "Both belong to one document."})
assert response.output.choices[0].message.content[0]["text"].count(EXPECTED_TEXT) == 2
shown("several images in one message, one of them uploaded")

response = read(
    {"image": data_url(IMAGE)},
    temperature=0.01,
    top_p=0.001,
    top_k=1,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    seed=1,
)
assert response.output.choices[0].message.content[0]["text"] == EXPECTED_TEXT
shown("sampling parameters")

response = read({"image": data_url(IMAGE)}, max_tokens=2)
assert response.output.choices[0].finish_reason == "length"
assert response.usage.output_tokens == 2
shown("max_tokens cuts the answer off")
