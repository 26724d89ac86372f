"""A model server of forty lines for the tests of endpoints and batch transform."""

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

    def reply(self, status, body, content_type="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Amzn-SageMaker-Custom-Attributes", "seen")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(200 if self.path == "/ping" and not model.get("sick") else 503, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"crash":
            os._exit(9)
        if body.startswith(b"sleep"):
            time.sleep(float(body.split()[1]))
        if body == b"bad":
            self.reply(422, b'{"error": {"type": "BadInput", "message": "no such image set"}}')
            return
        answer = {"body": body.decode(), "model": model["name"], "pid": os.getpid(),
                  "type": self.headers["Content-Type"], "mode": os.environ.get("MODE"),
                  "batch": os.environ.get("SAGEMAKER_BATCH")}
        self.reply(200, json.dumps(answer).encode() + b"\\n")

    def log_message(self, *arguments):
        print("served", arguments[0] % arguments[1:], flush=True)


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
