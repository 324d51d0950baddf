"""Serve a model to OpenAI's clients: ``omnihuman serve run=humanomni_stage3 port=8000``."""

import os
import signal
import sys

from omegaconf import DictConfig

from omnihuman.verb import verb


@verb("serve", "name")
def main(config: DictConfig) -> None:
    """Serve until interrupted or terminated."""
    from omnihuman.inference.answerer import read_options
    from omnihuman.serving.openai import RequestLimits, build_server
    from omnihuman.serving.process import LOOPBACK, check_port, end_forks_with_parent, private_folder
    from omnihuman.serving.uploads import Limits
    from omnihuman.training.model_folder import read_config
    from omnihuman.training.runs import find_run_folder

    folder = find_run_folder(config)
    read_config(folder)  # raises before processes are started
    check_port(config.host, config.port)
    limits = RequestLimits(
        max_body=config.max_body,
        max_pending_requests=config.max_pending_requests,
        max_seconds=config.max_seconds,
        max_body_seconds=config.max_body_seconds,
        max_characters=config.max_characters,
        max_new_tokens=config.max_new_tokens,
        max_request_tokens=config.max_request_tokens,
        media=Limits(**config.max_media),
        allow=(config.allow,) if isinstance(config.allow, str) else tuple(config.allow),
    )
    if config.host not in LOOPBACK and config.api_key is None:
        print(
            f"warning: host={config.host} without api_key: everyone who reaches this machine can use the model.",
            file=sys.stderr,
        )
    # as for Ctrl+C, LitServe ends its processes and the files are deleted; child processes keep the default
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    end_forks_with_parent()
    with private_folder("serve") as root:
        server = build_server(
            folder,
            root,
            name=config.name,
            host=config.host,
            limits=limits,
            batch_size=config.batch_size,
            api_key=None if config.api_key is None else str(config.api_key),
            accelerator=config.accelerator,
            devices=config.devices,
            workers_per_device=config.workers_per_device,
            model_kwargs=read_options(config),
        )
        print(f"{server.lit_api.spec.name}: http://{config.host}:{config.port}/v1, ready once it is loaded", flush=True)
        try:
            server.run(
                host=config.host,
                port=config.port,
                num_api_servers=1,  # pending requests are counted in one process
                log_level=config.log_level,
                generate_client_file=False,
            )
        except RuntimeError as error:  # LitServe's error for a model that was not loaded
            raise ValueError(f"{error}: the reason is in the lines above.") from error


if __name__ == "__main__":
    main()
