"""A fake of vLLM's server: answers /health, loads adapters and takes over weights on --port, and
starts a child process, as vLLM does. It keeps --middleware's promise by itself. FAKE_VLLM says how
it behaves: well, crashes, dies, hangs, busy."""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

BEHAVIOUR = os.environ.get("FAKE_VLLM", "well")


class Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True

    def do_GET(self):
        self._answer(200 if self.path == "/health" else 404, "")

    def do_POST(self):
        if BEHAVIOUR == "crashes":
            print("RuntimeError: no such head size", flush=True)
            os._exit(1)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            return self._answer(401, "wrong key")
        if self.path == "/collective_rpc":
            return self._reload(body)
        if self.path == "/reset_prefix_cache":
            print("forgot", flush=True)
            return self._answer(
                200, '{"success": %s}' % ("false" if BEHAVIOUR == "busy" else "true")
            )
        if not os.path.isdir(body["lora_path"]):
            return self._answer(404, "no adapter there")
        print("loaded", body["lora_name"], flush=True)
        return self._answer(200, "Success: loaded")

    def _reload(self, body):
        path = body["kwargs"]["weights_path"]
        if os.environ.get("VLLM_SERVER_DEV_MODE") != "1" or "--middleware" not in sys.argv:
            return self._answer(404, "not found")
        if not os.path.isdir(path):
            return self._answer(500, "no weights there")
        print(body["method"], path, flush=True)
        return self._answer(200, '{"results": [null]}')

    def _answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


def main():
    print("asked:", *sys.argv[1:], flush=True)
    if BEHAVIOUR == "dies":
        print("Traceback ...\nValueError: no such dtype", flush=True)
        print("RuntimeError: Engine core initialization failed. See root cause above.", flush=True)
        sys.exit(1)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("child:", child.pid, flush=True)
    if BEHAVIOUR == "hangs":
        time.sleep(600)
    HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()


main()
