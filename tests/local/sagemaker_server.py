"""Model servers of forty lines for the tests of endpoints and batch transform."""

SERVER = """
import http.server, json, os, pathlib, signal, sys, threading, time

base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
if sys.argv[1:] != ["serve"]:
    sys.exit(f"arguments {sys.argv[1:]}")
model = json.loads((base / "model/model.json").read_text())
if model.get("broken"):
    print("loading the network")
    sys.exit("weights do not fit the network")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = {}
    meeting = threading.Barrier(2)

    def reply(self, status, body, content_type="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Amzn-SageMaker-Custom-Attributes", "seen")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/execution-parameters" and "wishes" in model:
            self.reply(200, json.dumps(model["wishes"]).encode())
            return
        self.reply(200 if self.path == "/ping" and not model.get("sick") else 503, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"crash":
            os._exit(9)
        if body.startswith(b"sleep"):
            time.sleep(float(body.split()[1]))
        if body == b"meet":
            Handler.meeting.wait(30)  # raises, so that there is no answer, when nobody else comes
        if body == b"busy" and not Handler.asked.get("busy"):
            Handler.asked["busy"] = True
            self.reply(503, b"full")
            return
        if body == b"bad":
            self.reply(422, b'{"error": {"type": "BadInput", "message": "no such image set"}}')
            return
        answer = {"body": body.decode(), "model": model["name"], "pid": os.getpid(),
                  "type": self.headers["Content-Type"], "mode": os.environ.get("MODE"),
                  "batch": os.environ.get("SAGEMAKER_BATCH"),
                  "headers": {name.lower().removeprefix("x-amzn-sagemaker-"): value
                              for name, value in self.headers.items()
                              if name.lower().startswith("x-amzn-sagemaker-")}}
        self.reply(200, json.dumps(answer).encode() + b"\\n")

    def log_message(self, *arguments):
        print("served", arguments[0] % arguments[1:], flush=True)


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

MULTI_SERVER = """
import http.server, json, os, pathlib, signal, sys

base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
if sys.argv[1:] != ["serve"] or os.environ["SAGEMAKER_MULTI_MODEL"] != "true":
    sys.exit(f"arguments {sys.argv[1:]}")
ROOM = 2
loaded, lost = {}, set()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, document=None):
        body = json.dumps(document or {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        _, _, name = self.path.partition("/models/")
        self.reply(200 if self.path == "/ping" or name in loaded else 404)

    def do_DELETE(self):
        name = self.path.rpartition("/")[2]
        self.reply(200 if loaded.pop(name, None) else 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/models":
            wanted = json.loads(body)
            name, folder = wanted["model_name"], pathlib.Path(wanted["url"])
            if folder.parent.parent != base / "models":
                self.reply(400, {"error": f"{folder} is not below models"})
            elif name in loaded:
                self.reply(409)
            elif len(loaded) >= ROOM:
                self.reply(507, {"error": "full"})
            else:
                model = json.loads((folder / "model.json").read_text())
                if model.get("broken"):
                    self.reply(500, {"error": "weights do not fit the network"})
                    return
                loaded[name] = model
                self.reply(200)
            return
        name = self.path.split("/")[2]
        if body == b"lose" and name not in lost:
            lost.add(loaded.pop(name) and name)
        if name not in loaded or body == b"unknown":
            self.reply(404, {"error": "nothing there"})
            return
        self.reply(200, {"model": loaded[name]["name"], "body": body.decode(), "pid": os.getpid(),
                         "loaded": sorted(model["name"] for model in loaded.values()),
                         "target": self.headers["X-Amzn-SageMaker-Target-Model"]})

    def log_message(self, *arguments):
        print("served", arguments[0] % arguments[1:], flush=True)


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
