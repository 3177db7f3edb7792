"""Results on disk: one JSON line for the plan, then one for each visit.

Each added line rewrites the whole file and renames it into place, because a kill can cut an append
in the middle. Files are small, and a file stays readable throughout. `FORMAT` changes when a reader
of the old format would misunderstand the new one.

    1  first: {"record": "plan" | "visit", ...}
"""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localspec import paths
from localspec.bench.case import Case
from localspec.bench.prediction import Prediction
from localspec.bench.sample import Measurement
from localspec.errors import UserError
from localspec.hardware.activity import Circumstances
from localspec.store import alone, document_of, read_text, value_of, write_text

FORMAT = 1
ENDING = ".jsonl"


@dataclass(frozen=True, slots=True)
class Visited:
    """One visit, a line of results. `number`: its place in the schedule."""

    number: int
    case: Case
    is_anchor: bool
    measurement: Measurement | None
    reason: str | None
    circumstances: Circumstances
    prediction: Prediction | None
    environment: Mapping[str, Any]
    model: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ResultsHeader:
    """The plan of a run: cases in order, visits to each, samples a visit, cases left out."""

    started: str
    cases: tuple[Case, ...]
    n_rounds: int
    n_samples: int
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Results:
    """One file."""

    path: Path
    header: ResultsHeader
    visits: tuple[Visited, ...]


def read_results(path: Path) -> Results:
    """Raises UserError, with the line, for a file that holds no results of this format."""
    documents = list(_documents(path, read_text(path, str(path))))
    if not documents or documents[0].get("record") != "plan":
        raise UserError(f"{path} holds no results: its first line is no plan of `localspec bench`")
    try:
        header = value_of(ResultsHeader, documents[0])
        visits = tuple(value_of(Visited, document) for document in documents[1:])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged or of another version ({error!r})") from error
    return Results(path, header, visits)


class Writer:
    """Adds lines to one file, which it keeps from other writers."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self.path = path
        self._lines = lines

    @classmethod
    @contextmanager
    def open(cls, path: Path, header: ResultsHeader | None = None) -> Generator["Writer"]:
        """Begin a file with its plan, or continue one.

        Raises UserError while another bench writes to it.
        """
        taken = f"{path.name} is being written by another bench: wait for it"
        with alone(path, taken):
            writer = cls(path, [] if header else path.read_text(encoding="utf-8").splitlines())
            if header:
                writer._add("plan", header)
            yield writer

    def add(self, visited: Visited) -> None:
        """Keep a visit; it is on disk when this returns."""
        self._add("visit", visited)

    def _add(self, kind: str, value: Any) -> None:
        document = {"format": FORMAT, "record": kind, **document_of(value)}
        self._lines.append(json.dumps(document, allow_nan=False))
        write_text(self.path, "\n".join(self._lines) + "\n")


def results_folder() -> Path:
    """Where results are, unless they are sent elsewhere."""
    return paths.data_dir() / "results"


def path_of(name: str | Path) -> Path:
    """A file of results by its path, or by its name in their folder."""
    path = Path(name).expanduser()
    kept = results_folder() / path
    return kept if kept.exists() and not path.exists() else path


def result_files(folder: Path) -> list[Path]:
    """Newest first."""
    found = [path for path in folder.glob(f"*{ENDING}") if path.is_file()]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def _documents(path: Path, text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        try:
            document: Any = json.loads(line)
            version = document["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}, is no result of `localspec bench`") from error
        if version != FORMAT:
            raise UserError(
                f"{path}, line {number}, is of format {version} and this localspec reads {FORMAT}:"
                " use the version that wrote it"
            )
        yield document
