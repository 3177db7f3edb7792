"""Predicted memory against what a loaded model takes."""

import subprocess
import sys
from pathlib import Path

import pytest
from models import smollm2, variant

from localspec.forecast.forecast import facts_of
from localspec.prediction.memory import memory_of
from localspec.session.placing import host_of
from localspec.settings import Attention, Settings

CODE = """
import sys
from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.hardware.detect import peak_resident_bytes
from pathlib import Path
config = EngineConfig.of(Path(sys.argv[1]), ctx=2048, threads=1, gpu_layers=0,
                         repack=sys.argv[2] == "True")
engine = LlamaEngine(config)
engine.context().eval([1, 2, 3, 4], 1)
print(peak_resident_bytes())
"""


@pytest.mark.parametrize("repack", [True, False])
def test_a_second_copy_is_counted(repack: bool) -> None:
    """Without it the prediction is a quarter too low, and a machine that just fits does not."""
    path = variant(smollm2(), "Q4_0")
    settings = Settings(gpu_layers=0, repack=repack)
    memory = memory_of(facts_of(str(path)), Attention(), 2048, host_of(settings))
    assert _resident(path, repack=repack) == pytest.approx(memory.total_bytes, rel=0.12)


def _resident(path: Path, *, repack: bool) -> int:
    command = [sys.executable, "-c", CODE, str(path), str(repack)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
