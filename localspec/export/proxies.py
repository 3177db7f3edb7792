"""llama-swap and LiteLLM, which stand in front of servers: the first starts them on demand, the
second shares requests out among those that run, on one machine or several.

Neither was run here; both files follow the documentation.
"""

import json
import re
from dataclasses import replace

from localspec.engine.workers import addresses_of
from localspec.export.exported import Exported
from localspec.export.llama_cpp import llama_server
from localspec.session.config import SessionConfig

PORT = 8080
"""llama-server's own."""
_UNSAFE = re.compile(r"[^\w.-]+")


def llama_swap(config: SessionConfig) -> Exported:
    """A config.yaml with one model, started by its first request."""
    server = llama_server(config)
    command = server.text.replace("llama-server", "llama-server --port ${PORT}", 1)
    lines = "".join(
        f"      {line.strip()}\n" for line in command.replace("\\\n", "\n").splitlines()
    )
    text = f"models:\n  {json.dumps(_name(config))}:\n    cmd: |\n{lines}    ttl: 600\n"
    note = "append the entries of other models under `models:`; each takes the whole machine"
    return replace(server, text=text, notes=(*server.notes, note))


def litellm(config: SessionConfig) -> Exported:
    """A config.yaml with this machine's server, and one more for each worker's machine.

    Each machine answers whole requests, so the model must fit on every one of them.
    """
    hosts = ["127.0.0.1"]
    hosts += [address.rpartition(":")[0] for address in addresses_of(config.settings.workers)]
    server = llama_server(replace(config, settings=replace(config.settings, workers=())))
    command = " ".join(server.text.replace("\\\n", " ").split())
    lines = [f"# On each machine: {command} --host 0.0.0.0 --port {PORT}", "model_list:"]
    for host in dict.fromkeys(hosts):
        lines += [
            f"  - model_name: {json.dumps(_name(config))}",
            "    litellm_params:",
            f"      model: {json.dumps('openai/' + _name(config))}",
            f"      api_base: {json.dumps(f'http://{host}:{PORT}/v1')}",
            '      api_key: "none"',
        ]
    lines += ["router_settings:", "  routing_strategy: least-busy"]
    note = "each machine answers whole requests: the model must fit on every one"
    return Exported("\n".join(lines) + "\n", server.cannot, (note,))


def _name(config: SessionConfig) -> str:
    return _UNSAFE.sub("-", config.model.stem)
