"""OpenAI's SDK, synchronous: the calls of the vendor's pages, and further calls of users."""

from openai import OpenAI

from given import (
    COMPATIBLE_URL,
    EXPECTED_TEXT,
    IMAGE,
    IMAGE_URL,
    KEY,
    MODEL,
    SMALL,
    SMALL_TOKENS,
    data_url,
    shown,
)

PROMPT_TICKET_EXTRACTION = """
Extract from this train ticket the invoice number, train number, departure station, destination
station, departure date and time, seat number, seat type, fare, ID card number and passenger name.
Neither leave out nor invent anything; write ? for a single character that cannot be read.
Answer in JSON: {'invoice_number': 'xxx', 'train_number': 'xxx', 'departure_station': 'xxx',
'destination_station': 'xxx', 'departure_date_and_time': 'xxx', 'seat_number': 'xxx',
'seat_type': 'xxx', 'fare': 'xxx', 'id_card_number': 'xxx', 'passenger_name': 'xxx'}
"""

client = OpenAI(api_key=KEY, base_url=COMPATIBLE_URL)

completion = client.chat.completions.create(
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
                {"type": "text", "text": PROMPT_TICKET_EXTRACTION},
            ],
        }
    ],
)
assert completion.choices[0].message.content == EXPECTED_TEXT
assert completion.choices[0].message.role == "assistant"
assert completion.choices[0].finish_reason == "stop"
assert completion.model == MODEL
shown("the train ticket's prompt, image as URL")

image = {"type": "image_url", "image_url": {"url": data_url(IMAGE)}}
completion = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": [image]}],
)
assert completion.choices[0].message.content == EXPECTED_TEXT
shown("image as data URL, the model's own prompt")

usage = completion.usage
details = usage.prompt_tokens_details
assert usage.prompt_tokens == details.image_tokens + details.text_tokens
assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
assert details.image_tokens > SMALL_TOKENS
shown("usage")

completion = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": [{**image, "max_pixels": SMALL}]}],
)
assert completion.usage.prompt_tokens_details.image_tokens <= SMALL_TOKENS
shown("max_pixels beside image_url makes the image cheaper")

completion = client.chat.completions.create(
    model=MODEL,
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": IMAGE_URL}},
                {"type": "text", "text": "Both pages belong to one document: 发票 №1 – €5."},
                image,
            ],
        }
    ],
)
assert completion.choices[0].message.content.count(EXPECTED_TEXT) == 2
shown("several images and a text in one message")

completion = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": [image]}],
    temperature=0.01,
    top_p=0.001,
    presence_penalty=0.0,
    seed=1,
    extra_body={"top_k": 1, "repetition_penalty": 1.0},
)
assert completion.choices[0].message.content == EXPECTED_TEXT
shown("sampling parameters, those of OpenAI and those of extra_body")

completion = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": [image]}],
    max_tokens=2,
)
assert completion.choices[0].finish_reason == "length"
assert completion.usage.completion_tokens == 2
assert EXPECTED_TEXT.startswith(completion.choices[0].message.content)
shown("max_tokens cuts the answer off")

raw = client.chat.completions.with_raw_response.create(
    model=MODEL,
    messages=[{"role": "user", "content": [image]}],
)
completion = raw.parse()
assert completion.choices[0].message.content == EXPECTED_TEXT
assert raw.headers["content-type"].startswith("application/json")
assert raw.headers["x-request-id"] == completion._request_id
shown("the raw response and its request id")

models = client.models.list()
assert MODEL in [model.id for model in models]
assert all(model.object == "model" for model in models)
shown("the list of models")

asked = {"role": "user", "content": [image, {"type": "text", "text": "What does it say?"}]}
answered = {"role": "assistant", "content": EXPECTED_TEXT}
completion = client.chat.completions.create(
    model="qwen3.5-ocr",
    messages=[asked, answered, {"role": "user", "content": "And what is its total?"}],
)
assert completion.choices[0].message.content == EXPECTED_TEXT
assert completion.usage.prompt_tokens_details.image_tokens > SMALL_TOKENS
shown("a further question about an image, after the assistant's answer")

completion = client.chat.completions.create(
    model=MODEL,
    messages=[asked, answered, {"role": "user", "content": [image]}],
)
assert completion.choices[0].message.content == EXPECTED_TEXT
shown("a further image, after the assistant's answer")
