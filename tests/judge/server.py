"""A small OpenAI-compatible server, run as a process of its own: the model's name says how it behaves."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOG: list[dict[str, Any]] = []
LOCK = threading.Lock()


def reply(system: str, user: str) -> dict[str, Any]:
    """An answer that depends on the question, so that a mix-up shows."""
    if user.startswith("Question:"):
        return {"score": int(re.findall(r"\d+", user)[-1]) % 6}
    if "Events:" in user:
        text, _, events = user.partition("Events: ")
        return {
            "events": [
                {"event": e, "relationship": "entailment" if e in text else "neutral", "reason": "-"}
                for e in json.loads(events)
            ]
        }
    if user.startswith("Description:") and '"events"' in system:
        return {"events": [one.strip(" .") for one in user.partition(": ")[2].split(".") if one.strip(" .")]}
    if user.startswith(("Description:", "Text:")):
        return {"labels": [one.strip() for one in user.partition(": ")[2].split(",")]}
    if user.startswith("True "):
        truth, answer = (line.partition(": ")[2] for line in user.splitlines())
        return {"reason": "-", "score": 10 if truth == answer else 2}
    labels = json.loads(user.partition(": ")[2])
    return {"groups": [[one for one in labels if one[0] == first] for first in sorted({one[0] for one in labels})]}


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

    def fail(self, status: int, why: str, **headers: str) -> None:
        self.send(status, {"error": {"message": why, "code": None}}, **headers)

    def do_GET(self) -> None:
        with LOCK:
            self.send(200, LOG)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = (body["model"], json.dumps(body["messages"]), body.get("seed"))
        with LOCK:
            tries = sum(one["key"] == list(key) for one in LOG)
            LOG.append({"key": list(key), "time": time.time(), "body": body})
        model = body["model"].rpartition("/")[2]
        form = body.get("response_format", {}).get("type", "text")
        good = json.dumps(reply(*(turn["content"] for turn in body["messages"])))
        text = {
            "garbage": "As a language model I would rather not say.",
            "wrong": '{"verdict": "fine"}',
            "chatty": f"<think>{{hm}}</think>Sure!\n```json\n{good}\n``` Anything else?",
            "endless": "[" * 100_000,
            "surrogate": '{"events": ["a \\ud800"]}',
            "mood": good if tries else "Let me see.",
        }.get(model, good)
        if model == "broken" or (model == "flaky" and tries < 2):
            return self.fail(500, "out of order")
        if model == "busy" and tries == 0:
            return self.fail(429, "slow down", Retry_After="0.4")
        if model == "silent":
            self.close_connection = True
            return None
        if model == "page":
            return self.send(200, "<html>Welcome</html>", Content_Type="text/html")
        if model == "half":
            return self.send(200, '{"id": ')
        if model == "locked" and self.headers["Authorization"] != "Bearer s3cret":
            return self.fail(401, f"wrong key: {self.headers['Authorization']}")
        if (model == "plain" and form != "text") or (model == "object" and form == "json_schema"):
            return self.fail(400, f"response_format {form} is not supported")
        if model == "prudish" and "knife" in body["messages"][1]["content"]:
            return self.fail(400, "the text violates our policy")
        if model == "revoked" and tries == 0:
            if "answer 9" in body["messages"][1]["content"]:
                return self.fail(403, "no longer")
            return self.fail(503, "later")
        if model.startswith("slow"):
            time.sleep(1.0 if model == "slow" else 0.05)
        reason = "length" if model == "cut" else "stop"
        message = {"role": "assistant", "content": None if model == "mute" else text}
        self.send(200, {"id": "1", "object": "chat.completion", "created": 1, "model": f"{body['model']}-2024",
                        "system_fingerprint": "fp", "usage": {"prompt_tokens": 10, "completion_tokens": 2,
                        "total_tokens": 12}, "choices": [{"index": 0, "finish_reason": reason, "message": message}],
                        })  # fmt: skip
        return None


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
