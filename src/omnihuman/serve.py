"""Serve a model to OpenAI's clients: ``omnihuman serve run=humanomni_stage3 port=8000``."""

import signal
import sys
from contextlib import suppress
from functools import partial

from omegaconf import DictConfig

from omnihuman.verb import verb

MAX_NEW_TOKENS = 256
"""Maximum length of an answer, where neither the config, the request nor the model's authors give one."""


@verb("serve", "name", extra="serve")
def main(config: DictConfig) -> None:
    """Serve until interrupted or terminated."""
    import uvicorn

    from omnihuman.inference.prompting import choose_max_new_tokens, choose_prompting
    from omnihuman.serving.api import build_app
    from omnihuman.serving.guard import parse_origins
    from omnihuman.serving.openai import ChatCompletions, RequestLimits
    from omnihuman.serving.pool import Pool, list_devices
    from omnihuman.serving.process import LOOPBACK, Server, check_port, private_folder
    from omnihuman.serving.uploads import Limits
    from omnihuman.serving.worker import run_worker
    from omnihuman.training.run_search import find_run_folder

    folder = find_run_folder(config)
    check_port(config.host, config.port)
    prompting = choose_prompting(folder, config.official_prompt)
    max_new_tokens = config.max_new_tokens or choose_max_new_tokens(prompting, MAX_NEW_TOKENS)
    limits = RequestLimits(
        max_body=config.max_body,
        max_pending_requests=config.max_pending_requests,
        max_seconds=config.max_seconds,
        max_body_seconds=config.max_body_seconds,
        max_characters=config.max_characters,
        max_new_tokens=min(max_new_tokens, config.max_request_tokens),
        max_request_tokens=config.max_request_tokens,
        media=Limits(**config.max_media),
        allow=(config.allow,) if isinstance(config.allow, str) else tuple(config.allow),
    )
    if config.host not in LOOPBACK and config.api_key is None:
        print(
            f"warning: host={config.host} without api_key: everyone who reaches this machine can use the model.",
            file=sys.stderr,
        )
    origins = parse_origins(config.cors)
    if "*" in origins:
        print(f"warning: cors={config.cors}: every web page that a browser opens can use the model.", file=sys.stderr)
    devices = list_devices(config.accelerator, config.devices, config.workers_per_device)
    pool = Pool(partial(run_worker, config=config), devices, config.batch_size)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as for Ctrl+C, the files are deleted
    with private_folder("serve") as root, suppress(KeyboardInterrupt):
        endpoint = ChatCompletions(config.name or folder.resolve().name, limits, root, pool, origins)
        app = build_app(endpoint, config.host, None if config.api_key is None else str(config.api_key))
        options = uvicorn.Config(app, host=config.host, port=config.port, log_level=config.log_level)
        server = Server(options, config.shutdown_seconds, pool.close)
        print(f"{endpoint.name}: http://{config.host}:{config.port}/v1, ready once it is loaded", flush=True)
        with pool.run(end_server=server.end):
            server.run()
    if pool.failure is not None:
        raise ValueError(pool.failure)


if __name__ == "__main__":
    main()
