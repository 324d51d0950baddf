"""A small OpenAI-compatible server, run as a process of its own: ``server.py <port> <version>``.

The model's name selects its behaviour.
"""

import json
import re
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from operator import itemgetter
from typing import Any

LOG: list[dict[str, Any]] = []
LOCK = threading.Lock()


def read_text(turn: dict[str, Any]) -> str:
    """Return the text of a message, which may have media before it."""
    content = turn["content"]
    text: str = content if isinstance(content, str) else content[-1]["text"]
    return text


def build_reply(system: str, user: str) -> dict[str, Any]:
    """Return a reply that depends on the prompt, so that a mix-up is visible."""
    if user.startswith("What is it"):
        return {"text": user}
    if user.startswith("Question:"):
        return {"score": int(re.findall(r"\d+", user)[-1]) % 6}
    if "Events:" in user:
        text, _, events = user.partition("Events: ")
        relations = []
        for event in json.loads(events):
            relationship = "entailment" if event in text else "neutral"
            relations.append({"event": event, "relationship": relationship, "reason": "-"})
        return {"events": relations}
    if user.startswith("Description:") and '"events"' in system:
        return {"events": [event.strip(" .") for event in user.partition(": ")[2].split(".") if event.strip(" .")]}
    if user.startswith(("Description:", "Text:")):
        return {"labels": [label.strip() for label in user.partition(": ")[2].split(",")]}
    if user.startswith("True "):
        reference, answer = (line.partition(": ")[2] for line in user.splitlines())
        return {"reason": "-", "score": 10 if reference == answer else 2}
    labels = json.loads(user.partition(": ")[2])
    return {"groups": [list(group) for _, group in groupby(sorted(labels), key=itemgetter(0))]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def send(self, status: int, body: Any, **headers: str) -> None:
        raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self) -> None:
        with LOCK:
            self.send(200, LOG)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = (body["model"], json.dumps(body["messages"]), body.get("seed"))
        with LOCK:
            tries = sum(entry["key"] == list(key) for entry in LOG)
            LOG.append({"key": list(key), "time": time.time(), "body": body})
        model = body["model"].rpartition("/")[2]
        if not self.fail_request(model, body, tries):
            self.complete(model, body, tries)

    def fail_request(self, model: str, body: dict[str, Any], tries: int) -> bool:
        """Send an error if the model has one; return whether it has."""
        response_format = body.get("response_format", {}).get("type", "text")
        prompt = read_text(body["messages"][1])
        key = self.headers["Authorization"]
        revocation = (503, "later")
        if "answer 9" in prompt:
            revocation = (403, "no longer")
        errors = {
            "broken": (True, 500, "out of order"),
            "flaky": (tries < 2, 500, "out of order"),
            "busy": (tries == 0, 429, "slow down"),
            "locked": (key != "Bearer s3cret", 401, f"wrong key: {key}"),
            "plain": (response_format != "text", 400, f"response_format {response_format} is not supported"),
            "object": (response_format == "json_schema", 400, f"response_format {response_format} is not supported"),
            "prudish": ("knife" in prompt, 400, "the text violates our policy"),
            "revoked": (tries == 0, *revocation),
        }
        fails, status, reason = errors.get(model, (False, 200, ""))
        if fails:
            self.send(
                status, {"error": {"message": reason, "code": None}}, Retry_After="0.4" if model == "busy" else "0"
            )
        return fails

    def complete(self, model: str, body: dict[str, Any], tries: int) -> None:
        if model == "silent":
            self.close_connection = True
            return
        if model == "page":
            self.send(200, "<html>Welcome</html>", Content_Type="text/html")
            return
        if model == "half":
            self.send(200, '{"id": ')
            return
        if model.startswith("slow"):
            time.sleep(1.0 if model == "slow" else 0.05)
        valid = json.dumps(build_reply(*(read_text(turn) for turn in body["messages"])))
        texts = {
            "garbage": "As a language model I would rather not say.",
            "wrong": '{"verdict": "fine"}',
            "chatty": f"<think>{{hm}}</think>Sure!\n```json\n{valid}\n``` Anything else?",
            "endless": "[" * 100_000,
            "surrogate": '{"events": ["a \\ud800"]}',
            "mood": valid if tries else "Let me see.",
            "mute": None,
        }
        if model == "nonsense" and zlib.crc32(json.dumps(body["messages"]).encode()) % 20 == 0:
            model = "garbage"  # for a twentieth of the prompts, however often they are sent
        message = {"role": "assistant", "content": texts.get(model, valid)}
        completion = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": f"{body['model']}-{sys.argv[2]}",
            "system_fingerprint": "fp",
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
            "choices": [{"index": 0, "finish_reason": "length" if model == "cut" else "stop", "message": message}],
        }
        self.send(200, completion)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
