"""OpenAI's SDK: each refusal raises the class of error that its users catch."""

import asyncio

import openai
from openai import AsyncOpenAI, OpenAI

from given import COMPATIBLE_URL, GIF, IMAGE, KEY, MODEL, data_url, shown

WRONG_KEY = "sk-no-such-key"


def question(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def refusal(expected, client, **call):
    """The error of a refused call. Any other result ends the program."""
    try:
        client.chat.completions.create(**call)
    except expected as error:
        assert error.message and error.body["message"]
        return error
    raise AssertionError(f"answered in the place of {expected.__name__}")


client = OpenAI(api_key=KEY, base_url=COMPATIBLE_URL)
stranger = OpenAI(api_key=WRONG_KEY, base_url=COMPATIBLE_URL)
messages = question(data_url(IMAGE))
gif = question(data_url(GIF, "image/gif"))

for stream in (False, True):
    way = "streamed" if stream else "at once"

    error = refusal(
        openai.AuthenticationError, stranger, model=MODEL, messages=messages, stream=stream
    )
    assert error.status_code == 401 and error.request_id
    assert error.code == "invalid_api_key"
    assert WRONG_KEY not in str(error)
    shown(f"a wrong key, {way}: AuthenticationError")

    error = refusal(
        openai.NotFoundError, client, model="no-such-model", messages=messages, stream=stream
    )
    assert error.status_code == 404 and error.request_id
    assert error.code == "model_not_found"
    assert "no-such-model" in error.message
    shown(f"an unknown model, {way}: NotFoundError")

    error = refusal(openai.BadRequestError, client, model=MODEL, messages=gif, stream=stream)
    assert error.status_code == 400 and error.request_id
    assert error.code
    shown(f"a GIF, {way}: BadRequestError")

try:
    stranger.models.list()
except openai.AuthenticationError as error:
    assert error.code == "invalid_api_key"
else:
    raise AssertionError("a wrong key was told the models")
shown("a wrong key, the list of models: AuthenticationError")


async def main():
    async with AsyncOpenAI(api_key=WRONG_KEY, base_url=COMPATIBLE_URL) as stranger:
        try:
            await stranger.chat.completions.create(model=MODEL, messages=messages)
        except openai.AuthenticationError as error:
            assert error.code == "invalid_api_key"
        else:
            raise AssertionError("answered in the place of AuthenticationError")
    shown("a wrong key, asynchronous: AuthenticationError")


asyncio.run(main())
