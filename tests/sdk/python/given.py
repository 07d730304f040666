"""What a program is given by its environment: the gateway, a key for it, an image, and its text.

The two addresses and the key are all that differs from a program that calls DashScope itself.
"""

import base64
import os
import sys
from pathlib import Path

if not __debug__:
    sys.exit("asserts are off (python -O, PYTHONOPTIMIZE): nothing would be shown")

# No proxy of the environment stands between a program and a gateway on the same machine.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"

ADDRESS = os.environ["GATEWAY_ADDRESS"].rstrip("/")
KEY = os.environ["GATEWAY_KEY"]

# In the place of https://dashscope.aliyuncs.com/compatible-mode/v1 and of its /api/v1.
COMPATIBLE_URL = f"{ADDRESS}/compatible-mode/v1"
NATIVE_URL = f"{ADDRESS}/api/v1"

MODEL = "qwen-vl-ocr-2025-11-20"

# A PNG of more than SMALL pixels, and a URL under which the upstream finds a picture.
IMAGE = os.path.abspath(os.environ["IMAGE"])
IMAGE_URL = os.environ["IMAGE_URL"]
# A picture that no model takes.
GIF = Path(__file__).resolve().parents[2] / "fixtures" / "plain.gif"

# What the upstream reads in every picture.
EXPECTED_TEXT = os.environ["EXPECTED_TEXT"]

# Whether the address is the gateway's: the emulator does not refuse all that the gateway refuses.
GATEWAY_ONLY = os.environ.get("GATEWAY_ONLY") == "1"

# A limit of 16 cells of 32 by 32 pixels, and what an image costs under it at most: one token a
# cell, and two that mark its beginning and its end.
SMALL = 16 * 32 * 32
SMALL_TOKENS = 16 + 2


def data_url(path, media_type="image/png"):
    encoded = base64.b64encode(Path(path).read_bytes()).decode()
    return f"data:{media_type};base64,{encoded}"


def shown(what):
    print(f"shown: {what}", flush=True)
