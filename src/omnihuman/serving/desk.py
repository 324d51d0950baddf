"""A page that is shown: a model behind it, a private folder for uploads, a server in front."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

if TYPE_CHECKING:
    from omnihuman.evaluation.answerer import Answerer

HOW = "python -m omnihuman.data.sample draws the built-in corpus, whose clips are then offered here."


def show(config: DictConfig) -> None:
    """Load a model and show its page until it is interrupted; the folder of uploads goes with it.

    Args:
        config: of ``conf/chat.yaml``.

    Raises:
        ValueError: the folder holds no model, or an option does not hold.
    """
    import transformers
    import uvicorn

    from omnihuman.evaluation.answerer import Answerer
    from omnihuman.serving.process import LOOPBACK, check_port, private_folder

    check_port(config.host, config.port)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    answerer = Answerer.of_config(config)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # what is below is cleaned up
    with private_folder("chat") as folder:
        served = application(answerer, config, folder)
        if config.host not in LOOPBACK:
            print(
                f"warning: host={config.host}: everybody who reaches this machine may use the page, without a password"
            )
        print(f"{answerer.name}: http://{config.host}:{config.port}", flush=True)
        uvicorn.run(
            served, host=config.host, port=config.port, log_level="warning", access_log=False, server_header=False,
            timeout_graceful_shutdown=1, ws="none",
        )  # fmt: skip


def application(answerer: "Answerer", config: DictConfig, folder: Path) -> Any:
    """The page of a model as an ASGI application.

    Args:
        answerer: the model.
        config: of ``conf/chat.yaml``.
        folder: private and empty; uploads lie there.
    """
    uploads, clips = folder / "uploads", folder / "examples"
    # read when gradio is imported
    os.environ |= {
        "GRADIO_TEMP_DIR": str(uploads), "GRADIO_EXAMPLES_CACHE": str(uploads / "cache"),
        "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    for made in (uploads, clips):
        made.mkdir()
    import gradio as gr
    from fastapi import FastAPI

    from omnihuman.serving.conversation import Conversation, modals_of
    from omnihuman.serving.examples import examples_of
    from omnihuman.serving.guard import Guard
    from omnihuman.serving.page import Front, Page, style, theme
    from omnihuman.serving.process import LOOPBACK
    from omnihuman.serving.sessions import Sessions
    from omnihuman.serving.uploads import Limits, Uploads

    kinds = {kind for kind in ("video", "audio", "image") if modals_of(answerer.senses, kind) != ["text"]}
    examples = [] if config.examples is None else examples_of(Path(config.examples), kinds, clips)
    limits = Limits(bytes=int(config.max_upload * 2**20), seconds=float(config.max_seconds))
    device = next(answerer.model.parameters()).device
    front = Front(
        answerer.name, f"on {device}", answerer.senses, examples, "" if config.examples is None else HOW,
        config.max_new_tokens, float(config.temperature or 0), float(config.top_p or 1),
    )  # fmt: skip
    sessions = Sessions(lambda: Conversation(answerer, Uploads(limits)), uploads)
    inner = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page = Page(sessions, front).blocks()
    gr.mount_gradio_app(
        inner, page, path="/", server_name=config.host, server_port=config.port,
        footer_links=[], run_history=False, allowed_paths=[str(clips)], blocked_paths=[], show_error=False,
        max_file_size=limits.bytes, ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False,
        theme=theme(), css=style(),
    )  # fmt: skip
    page.has_launched = True  # before that, Gradio does not check which files a call may name; mounting forgets it
    return Guard(inner, uploads, limits.bytes, local=config.host in LOOPBACK)
