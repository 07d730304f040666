"""DashScope's SDK: each built-in task, and its result in the place where users of the SDK expect it.

The upstream reads the same text in each image. So the program checks the form of a result and that it contains the
text, not that a table or a formula was recognised.
"""

import json

import dashscope

from given import EXPECTED_TEXT, IMAGE, IMAGE_URL, KEY, MODEL, NATIVE_URL, data_url, shown

dashscope.base_http_api_url = NATIVE_URL

LINES = EXPECTED_TEXT.splitlines()
TICKET = {
    "invoice_number": "",
    "train_number": "letters and digits",
    "departure_station": "",
    "destination_station": "",
    "departure_date_and_time": "YYYY-MM-DD HH:MM",
    "seat": {"number": "", "type": ""},
    "fare": "",
    "id_card_number": "",
    "passenger_name": "",
}


def request(task, **config):
    return {
        "api_key": KEY,
        "model": MODEL,
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "image": data_url(IMAGE),
                        "min_pixels": 32 * 32 * 3,
                        "max_pixels": 32 * 32 * 8192,
                        "enable_rotate": False,
                    }
                ],
            }
        ],
        "ocr_options": {"task": task, **config},
    }


def result_of(task, **config):
    response = dashscope.MultiModalConversation.call(**request(task, **config))
    assert response.status_code == 200, response
    return response["output"]["choices"][0]["message"].content[0]


def unfenced(text, language):
    """The content of a code fence. The model writes one around anything but plain text."""
    before, inside, after = text.split("```")
    assert not before and not after.strip()
    assert inside.startswith(f"{language}\n")
    return inside.removeprefix(language)


for task in ("text_recognition", "multi_lan"):
    assert result_of(task)["text"] == EXPECTED_TEXT
    shown(f"{task}: plain text")

words = result_of("advanced_recognition")["ocr_result"]["words_info"]
assert [word["text"] for word in words] == LINES
assert all(len(word["location"]) == 8 and len(word["rotate_rect"]) == 5 for word in words)
shown("advanced_recognition: every line with its box, upright and rotated")

result = result_of("key_information_extraction", task_config={"result_schema": TICKET})
fields = result["ocr_result"]["kv_result"]
assert fields.keys() == TICKET.keys()
assert fields["seat"].keys() == TICKET["seat"].keys()
assert json.loads(unfenced(result["text"], "json")) == fields
shown("key_information_extraction: the fields of a train ticket, by a schema")

result = result_of("key_information_extraction")
assert isinstance(result["ocr_result"]["kv_result"], dict)
assert json.loads(unfenced(result["text"], "json")) == result["ocr_result"]["kv_result"]
shown("key_information_extraction: whatever fields there are, without a schema")

table = unfenced(result_of("table_parsing")["text"], "html")
assert "<table" in table and "</table>" in table and "<td" in table
assert all(line in table for line in LINES)
shown("table_parsing: HTML")

document = unfenced(result_of("document_parsing")["text"], "latex")
assert r"\begin{document}" in document and r"\end{document}" in document
assert all(line in document for line in LINES)
shown("document_parsing: LaTeX")

formula = result_of("formula_recognition")["text"].strip()
assert formula.startswith("$$") and formula.endswith("$$")
assert all(line in formula for line in LINES)
shown("formula_recognition: LaTeX between dollar signs")

# As in the SDK's own example: streamed, with the text so far in each event.
options = request("key_information_extraction", task_config={"result_schema": TICKET})
for response in dashscope.MultiModalConversation.call(
    **options, stream=True, incremental_output=False
):
    assert response.status_code == 200, response
    text = response.output.choices[0].message.content[0]["text"]
assert json.loads(unfenced(text, "json")).keys() == TICKET.keys()
shown("key_information_extraction, streamed")

options = request("advanced_recognition")
options["messages"][0]["content"][0]["image"] = IMAGE_URL
response = dashscope.MultiModalConversation.call(**options)
assert response.status_code == 200, response
assert response.output.choices[0].message.content[0]["ocr_result"]["words_info"]
shown("a task, image as URL")
