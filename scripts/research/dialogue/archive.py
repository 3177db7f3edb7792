"""The source archive of llama-cpp-python: chat templates and vocabularies of public models.

They are other people's and stay where they are: nothing of them is in this repository.
"""

import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from localspec import paths
from localspec.engine.health import engine_version
from localspec.engine.vocabulary import Vocabulary
from localspec.errors import EngineError, UserError

MODELS = "vendor/llama.cpp/models"


@dataclass(frozen=True)
class Archive:
    """An unpacked archive's folder of models."""

    folder: Path

    @property
    def templates(self) -> dict[str, str]:
        """Sources by file name."""
        files = sorted((self.folder / "templates").glob("*.jinja"))
        return {file.stem: file.read_text(encoding="utf-8") for file in files}

    @property
    def vocabularies(self) -> dict[str, Path]:
        """GGUF files without weights, by name."""
        files = sorted(self.folder.glob("ggml-vocab-*.gguf"))
        return {file.stem.removeprefix("ggml-vocab-"): file for file in files}


def open_archive(given: Path | None) -> Archive:
    """Unpacked, from a file or fetched from the package index once. Raises UserError."""
    version = engine_version()
    home = paths.cache_dir() / "research" / f"llama_cpp_python-{version}"
    if not (home / MODELS / "templates").exists():
        archive = given or _fetched(version, home.parent)
        home.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as packed:
            wanted = [m for m in packed if f"/{MODELS}/" in m.name]
            packed.extractall(home.parent, wanted, filter="data")
    if not (home / MODELS / "templates").exists():
        raise UserError(f"{given} is not the source archive of llama-cpp-python {version}")
    return Archive(home / MODELS)


def _fetched(version: str, folder: Path) -> Path:
    print(f"fetching the source of llama-cpp-python {version}", file=sys.stderr)
    options = ["--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, f"llama-cpp-python=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("llama_cpp_python-*.tar.gz"))
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["pip gives no reason"])[-1]
        raise UserError(f"the source archive cannot be had ({reason}): name a file with --archive")
    return found[-1]


def load_vocabulary(path: Path) -> Vocabulary:
    """A vocabulary that lives as long as this process. Raises EngineError."""
    from localspec.engine.llama.binding import C, initialise  # noqa: PLC0415 - loads libllama
    from localspec.engine.llama.vocabulary import LlamaVocabulary  # noqa: PLC0415

    initialise()
    parameters = C.llama_model_default_params()
    parameters.vocab_only = True
    model = C.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise EngineError(f"libllama refuses the vocabulary {path.name}")
    return LlamaVocabulary(model)
