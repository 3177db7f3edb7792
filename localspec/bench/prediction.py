"""The predicted figures of a case, made before it is measured and stored beside the measured ones.

Plain decoding follows from the roofline alone. The acceptance of drafts cannot be predicted, so the
prediction keeps the times of wider passes: with the measured acceptance they give the speed that
drafting should have reached.
"""

from dataclasses import dataclass, replace
from functools import cache
from math import exp
from pathlib import Path

from localspec.bench.case import Case, Work, read_prompts
from localspec.engine.base import EngineConfig
from localspec.engine.graphics import graphics
from localspec.engine.threads import default_threads
from localspec.errors import LocalspecError
from localspec.forecast.experience import remember
from localspec.forecast.forecast import Expectation
from localspec.forecast.head_forecast import AskedHead, draft_bytes
from localspec.forecast.machine import MachineChoice, PredictedMachine, ProbeChoice
from localspec.forecast.rated_machine import predicted_machine
from localspec.gguf.reader import read_header
from localspec.hardware.probe_results import Curve
from localspec.model.facts import ModelFacts
from localspec.model.kv import types_of
from localspec.notify import Notify
from localspec.prediction.memory import memory_of
from localspec.prediction.rates import Speed
from localspec.prediction.roofline import Roofline
from localspec.session.drafting import planned_head
from localspec.session.loading import checked_facts
from localspec.session.placing import host_of
from localspec.session.session_config import SessionConfig
from localspec.settings import Attention, Settings, Speculation


@cache
def facts_of(model: Path) -> ModelFacts:
    """Facts of a model, read once. Raises ModelError for a file that is no usable model."""
    return checked_facts(model)


MAX_WIDTH = 17
PEAK_TOKENS = 512
"""Width of the pass that shows the peak arithmetic rate."""
DEFAULT_CTX = 4096


@dataclass(frozen=True, slots=True)
class PassParts:
    """Seconds of one pass: weights, attention, and overhead that no byte explains."""

    weights_s: float
    attention_s: float
    overhead_s: float

    @property
    def seconds(self) -> float:
        return self.weights_s + self.attention_s + self.overhead_s


@dataclass(frozen=True, slots=True)
class RanHere:
    """A model's latest run here: `ratio`, its seconds a token over those predicted without it."""

    model: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """Plain values. `passes[n - 1]`: a pass of n tokens a sequence, halfway through the reply.

    Bytes and FLOPs are those of one pass of one token a sequence, and of the prompt. `flops_per_s`:
    the rate that wide passes of this model reach; `bandwidth_bytes_per_s`: the memory's. `bound`:
    the resource that limits decoding. `source`: of the rates, and the runs that corrected them.
    `draft_s`: seconds of a token from the draft model. `rests_on`: the runs that corrected it, by
    `correction`, a factor on seconds.
    """

    decode_tps: Speed
    prefill_tps: Speed | None
    first_s: float | None
    memory_bytes: int
    bound: str
    source: str
    passes: tuple[PassParts, ...]
    draft_s: float
    weights_bytes: float
    k_bytes: float
    v_bytes: float
    pass_flops: float
    prompt_bytes: float
    prompt_flops: float
    bandwidth_bytes_per_s: float | None
    flops_per_s: float | None
    rests_on: tuple[RanHere, ...] = ()
    correction: float = 1.0

    @property
    def pass_bytes(self) -> float:
        return self.weights_bytes + self.k_bytes + self.v_bytes

    def pass_at(self, width: float) -> PassParts:
        """A pass of a fractional width, by straight lines; beyond the last width, that width's."""

        def part(name: str) -> float:
            seconds = (getattr(parts, name) for parts in self.passes)
            return Curve(enumerate(seconds, 1)).within(width)

        return PassParts(*map(part, PassParts.__slots__))


class Predictor:
    """Predicts cases on this machine; probes it once for each number of threads and GPU layers."""

    def __init__(self, cases: tuple[Case, ...], probe: ProbeChoice, notify: Notify) -> None:
        self._probe: ProbeChoice = probe
        self._notify = notify
        self._cases = cases
        self._machines: dict[Settings, PredictedMachine | None] = {}

    def of(self, case: Case) -> Prediction | None:
        """None where nothing is known of the machine, or where the case only times a curve."""
        machine = self._machine(case)
        if machine is None or not (case.work.n_gen or case.work.n_prompt):
            return None
        return predict(case, machine, facts_of(case.config.model))

    def prepare(self) -> None:
        """Probe the machine now, for all cases."""
        for case in self._cases:
            self._machine(case)

    def _machine(self, case: Case) -> PredictedMachine | None:
        key = _device_key(case)
        if key not in self._machines:
            self._machines[key] = self._found(key)
        return self._machines[key]

    def _found(self, key: Settings) -> PredictedMachine | None:
        same = [case for case in self._cases if _device_key(case) == key]
        models = dict.fromkeys(case.config.model for case in same)
        caches = list(dict.fromkeys(case.settings.attention for case in same))
        try:
            choice = _choice(key, self._probe)
            facts = [facts_of(path) for path in models]
            facts += [model_of(each) for each in map(drafter_of, same) if each]
            return predicted_machine(choice, facts, caches, DEFAULT_CTX, self._notify)
        except LocalspecError as error:
            if self._probe != "off":
                self._notify(f"there is no prediction: {error}")
            return None


def _device_key(case: Case) -> Settings:
    """What decides who computes, and nothing else."""
    names = ("threads", "gpu_layers", "cpu_moe", "device", "workers", "split")
    return Settings(**{name: getattr(case.settings, name) for name in names})


def _choice(key: Settings, probe: ProbeChoice) -> MachineChoice:
    layers = key.gpu_layers if graphics(key.device, key.workers) else 0
    threads, named = key.threads or default_threads(), ",".join(key.device) or None
    return MachineChoice(named, threads, layers, probe, key.workers, key.split, key.cpu_moe)


def predict(case: Case, machine: PredictedMachine, facts: ModelFacts) -> Prediction:
    """Predict from a machine's rates; the case must measure more than a curve."""
    work, attention = case.work, case.settings.attention
    roofline = machine.roofline(facts, attention)
    depth = _middle(work)
    parts = [roofline.pass_time(n, depth, work.batch) for n in range(1, MAX_WIDTH + 1)]
    passes = tuple(PassParts(p.weights_s, p.attention_s, p.overhead_s + p.hops_s) for p in parts)
    n_prompt = work.n_prompt * work.batch
    wide_s = roofline.pass_time(PEAK_TOKENS, 0, is_prompt=True).weights_s
    n_ctx = case.session_config.settings.ctx or min(DEFAULT_CTX, facts.n_ctx_train or DEFAULT_CTX)
    k_bytes, v_bytes = kv_read_bytes(facts, attention, depth)
    prompt_kv = sum(kv_read_bytes(facts, attention, work.depth + work.n_prompt))
    return Prediction(
        decode_tps=roofline.decode(depth, work.batch),
        prefill_tps=roofline.prefill(work.n_prompt, work.depth) if n_prompt else None,
        first_s=work.batch * roofline.prefill_s(work.n_prompt, work.depth) if n_prompt else None,
        memory_bytes=_memory_bytes(case, roofline, n_ctx),
        bound=parts[0].bound,
        source="; ".join((machine.rates.source, *machine.experience.notes)),
        passes=passes,
        draft_s=_draft_s(case, machine, depth),
        weights_bytes=sum(part.n_bytes for part in facts.streamed(work.batch)),
        k_bytes=work.batch * k_bytes,
        v_bytes=work.batch * v_bytes,
        pass_flops=facts.flops(work.batch, depth),
        prompt_bytes=sum(part.n_bytes for part in facts.streamed(n_prompt)) + prompt_kv,
        prompt_flops=facts.flops(n_prompt, work.depth + work.n_prompt // 2),
        bandwidth_bytes_per_s=machine.bandwidth_bytes_per_s,
        flops_per_s=machine.flops_per_s or 2 * PEAK_TOKENS * facts.active_params / wide_s,
        rests_on=_ran_here(machine),
        correction=machine.experience.factor(facts),
    )


def _ran_here(machine: PredictedMachine) -> tuple[RanHere, ...]:
    evidence = machine.experience.evidence
    known = evidence.get("decode", []) if isinstance(evidence, dict) else evidence
    return tuple(RanHere(each.model, exp(each.log_ratio)) for each in known)


def _middle(work: Work) -> int:
    """The depth halfway through a reply; a real question counts one token for 4 letters."""
    depth = work.depth
    if work.prompts is not None:
        prompts = read_prompts(work.prompts, work.per_category)
        depth = sum(len(prompt.text) for prompt in prompts) // len(prompts) // 4
    return depth + work.n_gen // 2


def kv_read_bytes(facts: ModelFacts, attention: Attention, depth: int) -> tuple[float, float]:
    """Bytes of keys and of values that a pass reads at a depth; a window limits its layer."""
    k_bits, v_bits = (kind.bits_per_element for kind in types_of(attention))
    keys = values = 0.0
    for layer in facts.layers:
        cells = min(depth, layer.window_tokens or depth) * (
            layer.n_kv_heads if layer.attends else 0
        )
        keys += cells * (layer.key_size or 0) * k_bits / 8
        values += cells * (layer.value_size or 0) * v_bits / 8
    return keys, values


@cache
def _drafter(model: Path, draft: str, spec: Speculation) -> ModelFacts | AskedHead | None:
    config = SessionConfig.of(model, draft, spec=spec)
    head = planned_head(config.settings, read_header(model), config.draft)
    if head:
        return head.head
    return facts_of(config.draft) if config.draft else None


def drafter_of(case: Case) -> ModelFacts | AskedHead | None:
    """The draft model or head of a case, read once. Raises LocalspecError for one that cannot
    draft."""
    return _drafter(case.config.model, case.settings.draft, case.settings.spec)


def model_of(drafter: ModelFacts | AskedHead) -> ModelFacts:
    """What one of its passes reads."""
    return drafter.model if isinstance(drafter, AskedHead) else drafter


def _draft_s(case: Case, machine: PredictedMachine, depth: int) -> float:
    """Of one drafted token, of a block on average."""
    drafter, attention = drafter_of(case), case.settings.attention
    if drafter is None:
        return 0.0
    if isinstance(drafter, ModelFacts):
        return machine.roofline(drafter, attention).seconds(1, depth)
    block = drafter.facts.block
    n_rows, n_drafted = (block.n_tokens, block.n_tokens - block.first) if block else (1, 1)
    return machine.roofline(drafter.model, attention).seconds(n_rows, depth) / n_drafted


def _memory_bytes(case: Case, target: Roofline, n_ctx: int) -> int:
    host, n = host_of(case.settings), case.work.batch
    memory = memory_of(target.facts, case.settings.attention, n_ctx, host, n_sequences=n)
    return memory.total_bytes + draft_bytes(drafter_of(case), target, n, n_ctx, host)


def learn(case: Case, plain_s: float | None) -> None:
    """Let a plain pass, of `plain_s` in the engine, correct later predictions here."""
    work, settings = case.work, case.settings
    if not plain_s or settings.spec != "none" or work.batch > 1 or settings.cpu_moe:
        return
    decided = replace(settings, threads=settings.threads or default_threads())
    config, facts = EngineConfig(case.config.model, decided), facts_of(case.config.model)
    expected = Expectation.of(config, facts)
    if expected:
        remember(config, facts, expected.roofline.seconds(1, _middle(work)), plain_s)
