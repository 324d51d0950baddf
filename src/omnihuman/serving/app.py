"""The app of ``omnihuman chat``: a model, its page, a private folder for uploads, and a server."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

if TYPE_CHECKING:
    from omnihuman.inference.answerer import Answerer
    from omnihuman.serving.page import PageOptions

EXAMPLES_HINT = "Write the built-in corpus with omnihuman sample to see its clips here."


def serve_page(config: DictConfig) -> None:
    """Load a model and serve its page until interrupted; uploads are deleted at the end.

    Args:
        config: of ``conf/chat.yaml``.

    Raises:
        ValueError: the folder holds no model, or an option is invalid.
    """
    import transformers
    import uvicorn

    from omnihuman.inference.answerer import Answerer
    from omnihuman.serving.process import LOOPBACK, check_port, private_folder
    from omnihuman.serving.quality import describe_quality
    from omnihuman.training.run_search import find_run_folder

    check_port(config.host, config.port)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    answerer = Answerer.from_config(config)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an exit that deletes the folder below
    with private_folder("chat") as folder:
        app = build_app(answerer, config, folder, describe_quality(find_run_folder(config)))
        if config.host not in LOOPBACK:
            print(f"warning: host={config.host}: everyone who reaches this machine can use the page, without password")
        print(f"{answerer.name}: http://{config.host}:{config.port}", flush=True)
        uvicorn.run(
            app,
            host=config.host,
            port=config.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            ws="none",
        )


def build_app(answerer: "Answerer", config: DictConfig, folder: Path, quality: str = "") -> Any:
    """Build the page of a model as an ASGI application.

    Args:
        answerer: the model.
        config: of ``conf/chat.yaml``.
        folder: private and empty, for uploads.
        quality: a sentence on how good the model is.
    """
    uploads, clips = folder / "uploads", folder / "examples"
    # Gradio reads these when it is imported
    os.environ |= {
        "GRADIO_TEMP_DIR": str(uploads),
        "GRADIO_EXAMPLES_CACHE": str(uploads / "cache"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    uploads.mkdir()
    clips.mkdir()
    import gradio as gr
    from fastapi import FastAPI

    from omnihuman.serving.conversation import Conversation
    from omnihuman.serving.guard import Guard
    from omnihuman.serving.page import Page, build_theme, read_style
    from omnihuman.serving.process import LOOPBACK
    from omnihuman.serving.sessions import Sessions
    from omnihuman.serving.uploads import Limits, Uploads

    limits = Limits(bytes=int(config.max_upload * 2**20), seconds=float(config.max_seconds))
    sessions = Sessions(lambda: Conversation(answerer, Uploads(limits)), uploads)
    page = Page(sessions, _build_options(answerer, config, clips, quality)).build()
    inner = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        inner,
        page,
        path="/",
        server_name=config.host,
        server_port=config.port,
        footer_links=[],
        run_history=False,
        allowed_paths=[str(clips)],
        blocked_paths=[],
        show_error=False,
        max_file_size=limits.bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=build_theme(),
        css=read_style(),
    )
    # Gradio checks the files of a call only after this is set, and mounting does not set it
    page.has_launched = True
    return Guard(inner, uploads, limits.bytes, local=config.host in LOOPBACK)


def _build_options(answerer: "Answerer", config: DictConfig, clips: Path, quality: str) -> "PageOptions":
    """Build the texts and initial values of the page; copies of the examples go to the folder ``clips``."""
    from omnihuman.modality import KINDS, View
    from omnihuman.serving.examples import find_examples
    from omnihuman.serving.page import PageOptions

    examples, hint = [], ""
    if config.examples is not None:
        kinds = {kind for kind in KINDS if answerer.view & View.of_kind(kind)}
        examples, hint = find_examples(Path(config.examples), kinds, clips), EXAMPLES_HINT
    device = next(answerer.model.parameters()).device
    return PageOptions(
        title=answerer.name,
        subtitle=f"on {device}",
        quality=quality,
        view=answerer.view,
        examples=examples,
        examples_hint=hint,
        max_new_tokens=config.max_new_tokens or answerer.max_new_tokens,
        temperature=float(config.temperature or 0),
        top_p=float(config.top_p or 1),
    )
