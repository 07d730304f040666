"""DashScope's SDK: a refusal is a response with its status and code; the newer client raises it."""

import asyncio

import dashscope
from dashscope import AioMultiModalConversation, MultiModalConversation
from dashscope.v2.errors import AuthenticationError, BadRequestError, NotFoundError

from given import GIF, IMAGE, KEY, MODEL, NATIVE_URL, data_url, shown

dashscope.base_http_api_url = NATIVE_URL

WRONG_KEY = "sk-no-such-key"
GOOD, BAD = data_url(IMAGE), data_url(GIF, "image/gif")


def request(key, model, image):
    messages = [{"role": "user", "content": [{"image": image}]}]
    return {"api_key": key, "model": model, "messages": messages}


# The fault, the call, its status, its code, and the exception of version 2.
REFUSALS = (
    ("a wrong key", request(WRONG_KEY, MODEL, GOOD), 401, "InvalidApiKey", AuthenticationError),
    ("an unknown model", request(KEY, "no-such-model", GOOD), 404, "ModelNotFound", NotFoundError),
    ("a GIF", request(KEY, MODEL, BAD), 400, "InvalidParameter", BadRequestError),
)


def assert_refused(response, status, code):
    assert response.status_code == status, response
    assert response.code == code, response
    assert response.message and response.request_id
    assert WRONG_KEY not in response.message
    assert not response.output and not response.usage


for wrong, call, status, code, _ in REFUSALS:
    assert_refused(MultiModalConversation.call(**call), status, code)
    shown(f"{wrong}: {status} {code}")

    (response,) = MultiModalConversation.call(**call, stream=True, incremental_output=True)
    assert_refused(response, status, code)
    shown(f"{wrong}, streamed: {status} {code}")


async def main():
    for wrong, call, status, code, _ in REFUSALS:
        assert_refused(await AioMultiModalConversation.call(**call), status, code)
        stream = await AioMultiModalConversation.call(**call, stream=True)
        (response,) = [response async for response in stream]
        assert_refused(response, status, code)
        shown(f"{wrong}, asynchronous, at once and streamed: {status} {code}")
    await dashscope.close_shared_aio_session()


asyncio.run(main())

client = dashscope.Client(base_url=NATIVE_URL, api_key=KEY)
for wrong, call, status, code, expected in REFUSALS:
    for stream in (False, True):
        try:
            answer = client.multimodal.chat.create(**call, stream=stream)
            # The service may refuse a stream in its first event, under status 200.
            _ = stream and list(answer)
        except expected as error:
            assert stream or error.status_code == status
            assert error.code == code
            assert error.request_id
        else:
            raise AssertionError(f"{wrong} was answered")
    shown(f"{wrong}, the client of version 2: {expected.__name__}")

# The request for an upload policy uses the same key.
try:
    MultiModalConversation.call(**request(WRONG_KEY, MODEL, IMAGE))
except dashscope.common.error.UploadFileException as error:
    assert "InvalidApiKey" in str(error)
else:
    raise AssertionError("a file was uploaded with a wrong key")
shown("a wrong key, image as a path: the upload is refused")
