"""Python programs of others against a server: python clients.py URL. Prints a line for each.

LangChain's ChatOpenAI and simonw's llm: chat, stream, schema, a named tool.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

QUESTION = "Name three colours."
SCHEMA = {
    "title": "Colour", "type": "object", "properties": {"colour": {"enum": ["red", "blue"]}},
    "required": ["colour"], "additionalProperties": False,
}  # fmt: skip
TOOL = {
    "type": "function",
    "function": {"name": "paint", "description": "Paint it.", "parameters": SCHEMA},
}


def langchain(url: str) -> str:
    """Whole, streamed, kept to a schema."""
    made: Any = importlib.import_module("langchain_openai").ChatOpenAI
    chat = made(base_url=f"{url}/v1", api_key="none", model="any", temperature=0, max_tokens=16)
    whole = chat.invoke(QUESTION)
    assert "".join(part.text for part in chat.stream(QUESTION)) == whole.text
    assert whole.usage_metadata["output_tokens"] > 0
    long = made(base_url=f"{url}/v1", api_key="none", model="any", temperature=0, max_tokens=60)
    kept = long.with_structured_output(SCHEMA, method="json_schema").invoke(QUESTION)
    assert kept["colour"] in ("red", "blue")
    called = long.bind_tools([TOOL], tool_choice="paint").invoke(QUESTION)
    assert [call["name"] for call in called.tool_calls] == ["paint"]
    return whole.text


def llm(url: str) -> str:
    """The command, with a model of its own file of models."""
    with tempfile.TemporaryDirectory() as folder:
        entry = {"model_id": "local", "model_name": "any", "api_base": f"{url}/v1",
                 "supports_schema": True}  # fmt: skip
        Path(folder, "extra-openai-models.yaml").write_text(json.dumps([entry]))
        environment = {**os.environ, "LLM_USER_PATH": folder, "OPENAI_API_KEY": "none"}
        environment.pop("PYTHONPATH", None)  # it loads the starter's plugin, which needs an engine

        def ask(*words: str) -> str:
            command = [sys.executable, "-m", "llm", "-m", "local", *words, QUESTION]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=120
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        said = ask("-o", "temperature", "0", "-o", "max_tokens", "16")
        assert ask("-o", "temperature", "0", "-o", "max_tokens", "16", "--no-stream") == said
        assert json.loads(ask("--schema", json.dumps(SCHEMA)))["colour"] in ("red", "blue")
        return said


def main(url: str) -> int:
    """How many failed."""
    n_failed = 0
    for client in (langchain, llm):
        try:
            print(client.__name__, repr(client(url)))
        except Exception as error:  # noqa: BLE001 - the next one is asked, too
            n_failed += 1
            print(client.__name__, "FAILED", repr(error))
    return n_failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
