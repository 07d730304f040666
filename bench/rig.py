"""A gateway and an emulator on loopback, what they cost, and PDF files to send: for the Python programs of this folder.

Needs Linux and Python 3.11, nothing else.
"""

import http.client
import http.server
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-bench"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


class Relay:
    """Passes connections on to a port and counts the bytes that are sent there."""

    def __init__(self, port):
        self.target, self.sent = port, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self.copy, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self.copy, args=(far, near, False), daemon=True).start()

    def copy(self, source, sink, counts):
        try:
            while piece := source.recv(1 << 16):
                self.sent += len(piece) if counts else 0
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers each call with the same text and bill, without a look at the picture."""

    protocol_version = "HTTP/1.1"
    message = {"role": "assistant", "content": [{"text": "A page of text"}]}
    answer = {
        "request_id": "bench",
        "output": {"choices": [{"finish_reason": "stop", "message": message}]},
        "usage": {"input_tokens": 1022, "output_tokens": 4, "total_tokens": 1026, "image_tokens": 1000},
    }

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(self.answer).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def log_message(self, *_):
        pass


class Upstream:
    """What answers at once, for measurements in which the time of an emulator would count."""

    def __init__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Rig:
    """A gateway before an emulator. `tenant` has the flags of `ocr-gateway tenant create`. Without an emulator, calls are
    answered at once and billed at a fixed number of tokens."""

    def __init__(self, gateway, emulator, emulator_flags=(), tenant=(), settings=None, counted=False):
        self.folder = tempfile.TemporaryDirectory()
        self.port, metrics = free_port(), free_port()
        self.started = []
        if emulator:
            upstream = free_port()
            command = [emulator, "--listen", f"127.0.0.1:{upstream}", "--api-key", KEY, *emulator_flags]
            self.started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            wait_for(upstream)
        else:
            upstream = Upstream().port
        self.relay = Relay(upstream) if counted else None
        address = self.relay.port if counted else upstream
        self.environment = {
            **os.environ,
            "OCR_GATEWAY__SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "OCR_GATEWAY__SERVER__METRICS_LISTEN": f"127.0.0.1:{metrics}",
            "OCR_GATEWAY__SERVER__MAX_BODY_BYTES": str(64 << 20),
            "OCR_GATEWAY__DATABASE__URL": f"sqlite://{self.folder.name}/bench.db",
            "OCR_GATEWAY__UPSTREAM__BASE_URL": f"http://127.0.0.1:{address}",
            "OCR_GATEWAY__UPSTREAM__API_KEY": KEY,
            "OCR_GATEWAY__SERVER__DRAIN_GRACE_MS": "0",
            "OCR_GATEWAY__LOG__FILTER": "warn",
            "NO_PROXY": "127.0.0.1",
            **(settings or {}),
        }
        run = lambda *words: subprocess.run(
            [gateway, *words], env=self.environment, check=True, capture_output=True, text=True
        ).stdout.strip()
        run("migrate")
        run("tenant", "create", "bench", *tenant)
        self.key = run("key", "create", "bench")
        self.gateway = subprocess.Popen([gateway, "serve"], env=self.environment, stderr=subprocess.DEVNULL)
        self.started.insert(0, self.gateway)
        wait_for(self.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.started:
            process.terminate()
            process.wait()
        self.folder.cleanup()

    def request(self, path, body, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("POST", path, body, {"Authorization": f"Bearer {self.key}", **(headers or {})})
        return connection.getresponse()

    def post(self, path, body):
        """The answer of a route, which must be 200."""
        response = self.request(path, body)
        text = response.read()
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {text[:600].decode()}")
        return json.loads(text)

    def processes(self):
        """The gateway and its document workers."""
        numbers = [self.gateway.pid]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[1]) == self.gateway.pid:
                    numbers.append(int(entry.name))
        return numbers

    def cpu_seconds(self):
        """User and system time of the gateway, of its workers, and of those that have ended."""
        ticks = 0
        for number in self.processes():
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            ticks += (int(fields[13]) + int(fields[14])) if number == self.gateway.pid else 0
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_mb(self):
        """Memory of the gateway and its workers in MB; pages that they share count once (PSS)."""
        kilobytes = 0
        for number in self.processes():
            try:
                rollup = Path(f"/proc/{number}/smaps_rollup").read_text()
            except OSError:
                continue
            kilobytes += int(re.search(r"^Pss:\s+(\d+)", rollup, re.M).group(1))
        return kilobytes / 1024


class PeakMemory:
    """The largest memory of a rig while the block runs, sampled every 10 ms."""

    def __init__(self, rig):
        self.rig, self.peak, self.ended = rig, 0.0, False

    def __enter__(self):
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def sample(self):
        while not self.ended:
            self.peak = max(self.peak, self.rig.memory_mb())
            time.sleep(0.01)

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()


WORDS = "the harbour lamp tide table of order letter paper parcel street book ledger page seal quay port".split()


def text_contents(page, lines=62):
    """A page of text in a standard font."""
    out = []
    for line in range(lines):
        words = [WORDS[(page * 31 + line * 7 + place * 5) % len(WORDS)] for place in range(12)]
        out.append(f"BT /F1 9 Tf 50 {800 - 12 * line} Td ({page}.{line} {' '.join(words)}) Tj ET")
    return "\n".join(out).encode()


def drawing_contents(page, shapes=400):
    """A page of curves, filled and stroked, with a few words."""
    out = [f"BT /F1 12 Tf 50 800 Td (Drawing {page}) Tj ET 0.6 w"]
    for shape in range(shapes):
        x, y = 50 + (shape * 37 + page * 11) % 480, 60 + (shape * 53) % 700
        grey = shape % 9 / 10
        out.append(f"{grey} g {x} {y} m {x + 30} {y + 9} {x + 9} {y + 30} {x + 24} {y + 24} c h {'f' if shape % 3 else 'S'}")
    return "\n".join(out).encode()


def scan():
    """The JPEG of the scan in demo/order.pdf, with its width and height."""
    file = (ROOT / "demo/order.pdf").read_bytes()
    head = re.search(rb"/DCTDecode /Width (\d+) /Height (\d+)\s+/Length (\d+) >>\nstream\n", file)
    width, height, length = map(int, head.groups())
    return file[head.end() : head.end() + length], width, height


def pdf(kind, pages):
    """An A4 document of `text`, `scans` or `drawings`."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]

    def stream(dictionary, data):
        objects.append(b"<< " + dictionary + b" /Length %d >>\nstream\n" % len(data) + data + b"\nendstream")
        return len(objects)

    kids = []
    for page in range(1, pages + 1):
        resources = b"/Font << /F1 3 0 R >>"
        if kind == "scans":
            data, width, height = scan()
            # A comment within the JPEG, so that no two pages are the same.
            data = data[:2] + b"\xff\xfe\x00\x06%04d" % page + data[2:]
            picture = stream(
                b"/Type /XObject /Subtype /Image /ColorSpace /DeviceGray /BitsPerComponent 8 /Filter /DCTDecode"
                b" /Width %d /Height %d" % (width, height),
                data,
            )
            resources = b"/XObject << /S %d 0 R >>" % picture
            contents = stream(b"", b"q 595 0 0 842 0 0 cm /S Do Q")
        else:
            draw = text_contents if kind == "text" else drawing_contents
            contents = stream(b"", draw(page))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << %s >> /Contents %d 0 R >>"
            % (resources, contents)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), pages)

    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(out)
