"""LiteLLM's `ocr` with its prefix mistral/: a PDF, an image, a list of pages, awaited and refused."""

import asyncio
import json
import os
from pathlib import Path

# Use the prices in the package. Otherwise LiteLLM downloads them when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

from given import ADDRESS, DOCUMENT, EXPECTED_TEXT, IMAGE, IMAGE_URL, KEY, MODEL, SPENT_KEY, data_url, shown

litellm.suppress_debug_info = True

pdf = {"type": "document_url", "document_url": data_url(DOCUMENT, "application/pdf")}
image = {"type": "image_url", "image_url": data_url(IMAGE)}


def asked(document, **options):
    given = {"model": "mistral/mistral-ocr-latest", "api_base": f"{ADDRESS}/v1", "api_key": KEY}
    return {**given, "document": document, **options}


def indexes(answer):
    return [page.index for page in answer.pages]


def refusal(expected, **call):
    """The error of a refused call. Any other result ends the program."""
    try:
        litellm.ocr(**call)
    except expected as error:
        return error
    raise AssertionError(f"answered in the place of {expected.__name__}")


answer = litellm.ocr(**asked(pdf))
assert indexes(answer) == [0, 1, 2]
assert [page.markdown for page in answer.pages] == [EXPECTED_TEXT] * 3
assert answer.model == MODEL
assert answer.usage_info.pages_processed == 3
# Not of Mistral's API: LiteLLM keeps members that it does not know.
assert answer.usage["total_tokens"] > 0
shown("a PDF of three pages, with usage")

# LiteLLM reads the file itself.
file = litellm.ocr(**asked({"type": "file", "file": Path(DOCUMENT)}))
assert indexes(file) == [0, 1, 2]
shown("the path of a PDF")

answer = litellm.ocr(**asked(image, model=f"mistral/{MODEL}"))
assert indexes(answer) == [0] and answer.pages[0].markdown == EXPECTED_TEXT
shown("an image, and a model of the gateway by its own name")

answer = litellm.ocr(**asked(pdf, pages=[0, 2], include_image_base64=True))
assert indexes(answer) == [0, 2] and answer.pages[0].images == []
shown("a list of pages")

schema = {"type": "object", "properties": {"sender": {"type": "string"}}}
annotation = {"type": "json_schema", "json_schema": {"name": "letter", "schema": schema}}
answer = litellm.ocr(**asked(pdf, document_annotation_format=annotation))
assert indexes(answer) == [0, 1, 2]
assert list(json.loads(answer.document_annotation)) == ["sender"]
shown("fields of the document beside its pages")

error = refusal(litellm.AuthenticationError, **asked(image, api_key="sk-no-such-key"))
assert error.status_code == 401
shown("a wrong key: AuthenticationError")

error = refusal(litellm.NotFoundError, **asked(image, model="mistral/no-such-model"))
assert error.status_code == 404 and "no-such-model" in error.message
shown("an unknown model: NotFoundError")

address = {"type": "document_url", "document_url": IMAGE_URL}
error = refusal(litellm.BadRequestError, **asked(address))
assert error.status_code == 400 and "data URL" in error.message
shown("an address: BadRequestError")

error = refusal(litellm.RateLimitError, **asked(pdf, api_key=SPENT_KEY))
assert error.status_code == 429 and "budget_exhausted" in error.message
shown("a budget that is used up: RateLimitError")


async def main():
    answer = await litellm.aocr(**asked(pdf))
    assert indexes(answer) == [0, 1, 2]
    shown("asynchronous")


asyncio.run(main())
