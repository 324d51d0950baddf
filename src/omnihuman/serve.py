"""Serve a trained run to OpenAI's clients: ``python -m omnihuman.serve run=humanomni_stage3 port=8000``."""

import os
import signal
import sys

from omegaconf import DictConfig

from omnihuman.verb import verb


@verb("serve", "name")
def main(config: DictConfig) -> None:
    """Serve until interrupted or terminated."""
    from omnihuman.evaluation.answerer import how_of
    from omnihuman.serving.openai import Rules, make_server
    from omnihuman.serving.process import LOOPBACK, check_port, end_with_parent, private_folder
    from omnihuman.serving.uploads import Limits
    from omnihuman.training.finished import read_config
    from omnihuman.training.runs import run_folder

    folder = run_folder(config)
    read_config(folder)  # says what is wrong before processes are started
    check_port(config.host, config.port)
    rules = Rules(
        config.max_body,
        config.max_waiting,
        config.max_seconds,
        config.max_characters,
        config.max_new_tokens,
        config.most_tokens,
        Limits(**config.max_media),
        (config.allow,) if isinstance(config.allow, str) else tuple(config.allow),
    )
    if config.host not in LOOPBACK and config.api_key is None:
        print(f"host={config.host} without api_key: whoever reaches this machine may ask.", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl+C: LitServe ends its processes, files go
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    os.register_at_fork(after_in_child=end_with_parent)
    with private_folder("serve") as root:
        server = make_server(
            folder,
            root,
            name=config.name,
            host=config.host,
            rules=rules,
            batch_size=config.batch_size,
            api_key=None if config.api_key is None else str(config.api_key),
            accelerator=config.accelerator,
            devices=config.devices,
            workers_per_device=config.workers_per_device,
            model=how_of(config),
        )
        print(
            f"{server.lit_api.spec.name} answers at http://{config.host}:{config.port}/v1 once it is loaded", flush=True
        )
        try:
            server.run(
                host=config.host,
                port=config.port,
                num_api_servers=1,  # one counts who waits
                log_level=config.log_level,
                generate_client_file=False,
            )
        except RuntimeError as error:  # LitServe's word for a model that was not loaded
            raise ValueError(f"{error}: what is above says why.") from error


if __name__ == "__main__":
    main()
