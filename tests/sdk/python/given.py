"""The input of a program from its environment: the gateway, a key for it, an image, and its text.

Only the two addresses and the key differ from a program that calls DashScope itself.
"""

import base64
import os
import sys
from pathlib import Path

if not __debug__:
    sys.exit("asserts are off (python -O, PYTHONOPTIMIZE): nothing would be checked")

# A proxy of the environment must not be used for a gateway on the same machine.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"

ADDRESS = os.environ["GATEWAY_ADDRESS"].rstrip("/")
KEY = os.environ["GATEWAY_KEY"]

# In place of https://dashscope.aliyuncs.com/compatible-mode/v1 and its /api/v1.
COMPATIBLE_URL = f"{ADDRESS}/compatible-mode/v1"
NATIVE_URL = f"{ADDRESS}/api/v1"

MODEL = "qwen-vl-ocr-2025-11-20"

# A PNG of more than SMALL pixels, and a URL of an image that the upstream can read.
IMAGE = os.path.abspath(os.environ["IMAGE"])
IMAGE_URL = os.environ["IMAGE_URL"]
# An image that no model accepts.
GIF = Path(__file__).resolve().parents[2] / "fixtures" / "plain.gif"

# A PDF of three pages, and a key whose budget is used up: for the programs of Mistral's API.
DOCUMENT = os.environ.get("DOCUMENT", "")
SPENT_KEY = os.environ.get("SPENT_KEY", "")

# The text that the upstream reads in each image.
EXPECTED_TEXT = os.environ["EXPECTED_TEXT"]

# Whether the address is the gateway's. The emulator accepts some requests that the gateway refuses.
GATEWAY_ONLY = os.environ.get("GATEWAY_ONLY") == "1"

# A limit of 16 cells of 32 by 32 pixels, and the largest cost of an image under it: one token per cell, plus two that
# mark its start and end.
SMALL = 16 * 32 * 32
SMALL_TOKENS = 16 + 2


def data_url(path, media_type="image/png"):
    encoded = base64.b64encode(Path(path).read_bytes()).decode()
    return f"data:{media_type};base64,{encoded}"


def shown(what):
    print(f"shown: {what}", flush=True)
