"""Results on disk: one JSON line for the plan, then one for each visit.

Each added line rewrites the whole file and renames it into place, because a kill can cut an append
in the middle. Files are small, and a file stays readable throughout. `FORMAT` changes when a reader
of the old format would misunderstand the new one.

    1  first: {"record": "plan" | "visit", ...}
"""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localspec.bench.case import Case
from localspec.bench.prediction import Prediction
from localspec.bench.sample import Measurement
from localspec.errors import UserError
from localspec.hardware.activity import Circumstances
from localspec.store import alone, write_text

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

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "record": "visit",
            "number": self.number,
            "is_anchor": self.is_anchor,
            "case": self.case.to_json(),
            "model": dict(self.model),
            "environment": dict(self.environment),
            "circumstances": self.circumstances.to_json(),
            "prediction": self.prediction.to_json() if self.prediction else None,
            "measurement": self.measurement.to_json() if self.measurement else None,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Visited":
        measurement, prediction = document["measurement"], document["prediction"]
        return cls(
            number=int(document["number"]),
            case=Case.from_json(document["case"]),
            is_anchor=bool(document["is_anchor"]),
            measurement=Measurement.from_json(measurement) if measurement else None,
            reason=document["reason"],
            circumstances=Circumstances.from_json(document["circumstances"]),
            prediction=Prediction.from_json(prediction) if prediction else None,
            environment=document["environment"],
            model=document["model"],
        )


@dataclass(frozen=True, slots=True)
class ResultsHeader:
    """The plan of a run: cases in order, visits to each, samples a visit, cases left out."""

    started: str
    cases: tuple[Case, ...]
    n_rounds: int
    n_samples: int
    skipped: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "record": "plan",
            "started": self.started,
            "n_rounds": self.n_rounds,
            "n_samples": self.n_samples,
            "cases": [case.to_json() for case in self.cases],
            "skipped": [list(pair) for pair in self.skipped],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ResultsHeader":
        return cls(
            started=document["started"],
            cases=tuple(Case.from_json(case) for case in document["cases"]),
            n_rounds=int(document["n_rounds"]),
            n_samples=int(document["n_samples"]),
            skipped=tuple((str(what), str(why)) for what, why in document["skipped"]),
        )


@dataclass(frozen=True, slots=True)
class Results:
    """One file."""

    path: Path
    header: ResultsHeader
    visits: tuple[Visited, ...]


def read_results(path: Path) -> Results:
    """Raises UserError, with the line, for a file that holds no results of this format."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"{path} cannot be read: {reason}") from error
    documents = list(_documents(path, text))
    if not documents or documents[0].get("record") != "plan":
        raise UserError(f"{path} holds no results: its first line is no plan of `localspec bench`")
    try:
        header = ResultsHeader.from_json(documents[0])
        visits = tuple(Visited.from_json(document) for document in documents[1:])
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
    def new(cls, path: Path, header: ResultsHeader) -> Generator["Writer"]:
        """Begin a file with its plan."""
        with _alone(path):
            writer = cls(path, [])
            writer._add(header.to_json())
            yield writer

    @classmethod
    @contextmanager
    def existing(cls, path: Path) -> Generator["Writer"]:
        """Continue a file. Raises UserError while another bench writes to it."""
        with _alone(path):
            yield cls(path, path.read_text(encoding="utf-8").splitlines())

    def add(self, visited: Visited) -> None:
        """Keep a visit; it is on disk when this returns."""
        self._add(visited.to_json())

    def _add(self, document: dict[str, Any]) -> None:
        self._lines.append(json.dumps(document, allow_nan=False))
        write_text(self.path, "\n".join(self._lines) + "\n")


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


def _alone(path: Path) -> AbstractContextManager[None]:
    return alone(path, f"{path.name} is being written by another bench: wait for it")
