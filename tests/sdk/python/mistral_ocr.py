"""Mistral's SDK, `client.ocr`: a PDF, an image, a list of pages, and each refusal with the class of error for it."""

import asyncio
import json
from pathlib import Path

from mistralai.client import Mistral, errors, models
from mistralai.extra import response_format_from_pydantic_model
from pydantic import BaseModel

from given import ADDRESS, DOCUMENT, EXPECTED_TEXT, IMAGE, IMAGE_URL, KEY, MODEL, SPENT_KEY, data_url, shown

# The name that Mistral's own snippets have. The gateway maps it to a model of its own.
LATEST = "mistral-ocr-latest"

pdf = {"type": "document_url", "document_url": data_url(DOCUMENT, "application/pdf")}
image = {"type": "image_url", "image_url": data_url(IMAGE)}


class Letter(BaseModel):
    """A letter."""

    sender: str | None = None
    pages: list[str] | None = None


def indexes(answer):
    return [page.index for page in answer.pages]


def assert_whole(answer):
    assert indexes(answer) == [0, 1, 2]
    for page in answer.pages:
        assert page.markdown == EXPECTED_TEXT
        assert page.images == []
        assert page.dimensions.width > 0 and page.dimensions.height > 0 and page.dimensions.dpi > 0
    assert answer.model == MODEL
    assert answer.usage_info.pages_processed == 3
    assert answer.usage_info.doc_size_bytes == Path(DOCUMENT).stat().st_size


def refusal(expected, client, **call):
    """The error of a refused call. Any other result ends the program."""
    try:
        client.ocr.process(**{"model": LATEST, "document": image, **call})
    except expected as error:
        return error, json.loads(error.body)
    raise AssertionError(f"answered in the place of {expected.__name__}")


with Mistral(api_key=KEY, server_url=ADDRESS) as client:
    assert_whole(client.ocr.process(model=LATEST, document=pdf))
    shown("a PDF of three pages, with usage and dimensions")

    named = client.ocr.process(model=MODEL, document={**pdf, "document_name": "a.pdf"})
    assert_whole(named)
    shown("a model of the gateway by its own name")

    for form in (
        image,
        {"type": "image_url", "image_url": {"url": data_url(IMAGE), "detail": "high"}},
        models.ImageURLChunk(image_url=data_url(IMAGE)),
        {"type": "document_url", "document_url": data_url(IMAGE)},
    ):
        answer = client.ocr.process(model=None, document=form)
        assert indexes(answer) == [0] and answer.pages[0].markdown == EXPECTED_TEXT
    shown("an image in each form, with the default model")

    assert indexes(client.ocr.process(model=LATEST, document=pdf, pages=[2, 0])) == [0, 2]
    assert indexes(client.ocr.process(model=LATEST, document=pdf, pages="1-2")) == [1, 2]
    shown("pages as a list and as a text, from 0")

    answer = client.ocr.process(
        model=LATEST,
        document=pdf,
        include_image_base64=True,
        image_limit=3,
        image_min_size=100,
        include_blocks=True,
        extract_header=True,
        extract_footer=True,
    )
    assert all(page.images == [] and page.blocks is None for page in answer.pages)
    shown("what the models do not give is empty")

    answer = client.ocr.process(
        model=LATEST,
        document=pdf,
        document_annotation_format=response_format_from_pydantic_model(Letter),
    )
    assert_whole(answer)
    Letter.model_validate_json(answer.document_annotation)
    shown("fields of the document beside its pages")

    unknown, body = refusal(errors.SDKError, client, model="no-such-model")
    assert unknown.status_code == 404 and body["gateway_code"] == "model_not_found"
    assert LATEST in body["message"] and MODEL in body["message"]
    shown("an unknown model: SDKError 404 that names the models")

    document = {"type": "document_url", "document_url": IMAGE_URL}
    address, body = refusal(errors.SDKError, client, document=document)
    assert address.status_code == 400 and body["param"] == "document.document_url"
    file, body = refusal(errors.SDKError, client, document={"type": "file", "file_id": "f"})
    assert file.status_code == 400 and body["param"] == "document.file_id"
    shown("an address and the id of a file: SDKError 400 that names the member")

    for member, value in (
        ("bbox_annotation_format", {"type": "json_object"}),
        ("confidence_scores_granularity", "page"),
        ("table_format", "html"),
    ):
        refused, body = refusal(errors.SDKError, client, **{member: value})
        assert refused.status_code == 400 and body["param"] == member
        assert member in body["message"]
    shown("what has no counterpart: SDKError 400 that names the member")

    missing, body = refusal(errors.HTTPValidationError, client, document=pdf, pages=[3])
    assert missing.status_code == 422 and body["gateway_code"] == "page_not_found"
    assert missing.data.detail and missing.data.detail[0].loc[0] == "body"
    shown("a page that does not exist: HTTPValidationError")

with Mistral(api_key="sk-no-such-key", server_url=ADDRESS) as stranger:
    unauthorized, body = refusal(errors.SDKError, stranger)
    assert unauthorized.status_code == 401 and body["gateway_code"] == "unauthorized"
    shown("a wrong key: SDKError 401")

with Mistral(api_key=SPENT_KEY, server_url=ADDRESS) as spender:
    exhausted, body = refusal(errors.SDKError, spender, document=pdf)
    assert exhausted.status_code == 429 and body["gateway_code"] == "budget_exhausted"
    assert int(exhausted.headers["retry-after"]) > 0
    assert exhausted.headers["x-should-retry"] == "false"
    shown("a budget that is used up: SDKError 429 with Retry-After")


async def main():
    async with Mistral(api_key=KEY, server_url=ADDRESS) as client:
        calls = [client.ocr.process_async(model=LATEST, document=pdf) for _ in range(3)]
        for answer in await asyncio.gather(*calls):
            assert_whole(answer)
    shown("asynchronous, several at once")


asyncio.run(main())
