"""The steps of scripts/setup: `.venv`, engine, localspec, models; what is done is left out.

Needs Python >= 3.11, a C++ compiler and a package index. Outside the checkout nothing changes but
the cache of built engines.
"""

import argparse
import contextlib
import platform
import re
import signal
import sysconfig
import tempfile
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from _setup import stamp, venv
from _setup.engine import build_commands, build_wheel, cache_folder, copy_wheel, find_wheel
from _setup.facts import Facts, gather
from _setup.plan import Backend, Plan, Wishes, make_plan, parse_engine_version
from _setup.run import Command, SetupError, run, say
from _setup.stamp import Stamp
from _setup.venv import ROOT, VENV

LOGS = ROOT / ".cache" / "setup"


def main(argv: list[str]) -> int:
    """Exit code: 0 done, 1 failed, 2 usage, 130 stopped."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.arch and options.backend not in (None, "cuda", "rocm"):
        parser.error(f"--cuda-arch is for the CUDA backend, not for {options.backend}")
    for name in ("SIGTERM", "SIGHUP"):  # a closed terminal must not leave compilers behind
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        _set_up(options)
    except SetupError as error:
        say(f"setup: {error}")
        return 1
    except KeyboardInterrupt:
        say("setup: stopped; run it again to go on")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/setup", description="Make this checkout ready to run; a moment if it is."
    )
    parser.add_argument(
        "--backend",
        choices=["auto", *get_args(Backend)],
        help="what the engine computes on; remembered (default: as last time, at first auto)",
    )
    parser.add_argument(
        "--gpu-target",
        "--cuda-arch",
        dest="arch",
        metavar="N",
        help='what to build for: "90" or "86;90" for CUDA, "gfx1100" for ROCm',
    )
    parser.add_argument("--dev", action="store_true", help="also what scripts/test needs")
    parser.add_argument("--rebuild", action="store_true", help="make .venv and the engine anew")
    parser.add_argument(
        "--wheel-out",
        metavar="DIR",
        type=Path,
        help="only build an engine wheel for other machines, into DIR",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    return parser


def _set_up(options: argparse.Namespace) -> None:
    before = stamp.read(VENV)
    facts, wishes = gather(), _wishes(options, before)
    plan = make_plan(facts, wishes)
    if options.dry_run:
        _dry_run(plan, options)
    elif options.wheel_out:
        _wheel_out(plan, facts, options)
    else:
        with _alone():
            _install(plan, facts, wishes, options)


def _wishes(options: argparse.Namespace, before: Stamp | None) -> Wishes:
    """What was asked for once holds until something else is, so that scripts/demo need not know."""
    backend: Backend | Literal["auto"] | None = options.backend
    arch: str | None = options.arch
    if backend is None and arch:
        backend = "rocm" if arch.startswith("gfx") else "cuda"
    if backend is None and before and not options.wheel_out:
        backend, arch = before.backend, before.cuda_arch
    version = parse_engine_version(_pyproject())
    return Wishes(version, None if backend == "auto" else backend, arch, bool(options.wheel_out))


def _wanted(plan: Plan, wishes: Wishes, before: Stamp | None, *, dev: bool) -> Stamp:
    return Stamp(
        checkout=str(ROOT),
        python=(venv.python_version() if before else None) or platform.python_version(),
        engine=plan.installed_id,
        project=stamp.project_digest(_pyproject(), venv.STARTER_MODEL, *venv.TEST_MODELS),
        dev=dev,
        backend=wishes.backend,
        cuda_arch=wishes.cuda_arch,
    )


def _pyproject() -> str:
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def _is_whole(plan: Plan, wanted: Stamp) -> bool:
    return venv.has_engine(plan.version) and venv.has_packages(dev=wanted.dev)


# --- the three things it can do --------------------------------------------------------------


def _install(plan: Plan, facts: Facts, wishes: Wishes, options: argparse.Namespace) -> None:
    started_s = time.monotonic()
    stamped = stamp.read(VENV)
    before = None if options.rebuild else stamped
    dev = options.dev or bool(stamped and stamped.dev)
    wanted = _wanted(plan, wishes, before, dev=dev)
    if before and before.serves(wanted) and _is_whole(plan, wanted):
        say(f"localspec is set up: {_engine_name(plan)}; nothing to do")
        return
    keeps_venv = bool(before and before.venv_serves(wanted))
    is_same = before is not None and before.engine == plan.installed_id
    keeps_engine = keeps_venv and is_same and venv.has_engine(plan.version)
    wheel = None if options.rebuild else find_wheel(plan, cache_folder())
    _explain(plan, facts, "in .venv" if keeps_engine else "built before" if wheel else None)
    if not (keeps_engine or wheel):
        _stop_at_obstacles(plan)
    if not keeps_venv:
        _step(venv.making(VENV))
    if not keeps_engine:
        stamp.write(VENV, replace(wanted, engine="", project=""))
        wheel = wheel or build_wheel(plan, venv.python_of(VENV), cache_folder())
        _step(venv.installing_engine(wheel))
        venv.remove_module()
        if plan.is_prebuilt:
            _step(venv.installing_module())
    stamp.write(VENV, replace(wanted, project=""))
    _step(venv.installing_project(dev=wanted.dev))
    _step(venv.installing_models(dev=wanted.dev))
    stamp.write(VENV, wanted)
    say(f"  done in {time.monotonic() - started_s:.0f} s")


def _wheel_out(plan: Plan, facts: Facts, options: argparse.Namespace) -> None:
    cache = cache_folder()
    wheel = None if options.rebuild else find_wheel(plan, cache)
    _explain(plan, facts, "built before" if wheel else None)
    if not wheel:
        _stop_at_obstacles(plan)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".venv-", dir=cache) as folder:
            _step(venv.making(Path(folder)))
            wheel = build_wheel(plan, venv.python_of(Path(folder)), cache)
    say(f"  wheel     {copy_wheel(wheel, options.wheel_out)}")


def _dry_run(plan: Plan, options: argparse.Namespace) -> None:
    """The commands of a first set-up go to stdout, what would stop it here to stderr."""
    say(f"backend {plan.backend}: {plan.reason}")
    for line in (*plan.notes, *(f"here this would stop: {text}" for text in plan.obstacles)):
        say(line)
    scratch = cache_folder() / "building"
    place = cache_folder() / "venv" if options.wheel_out else VENV
    tag = re.sub("[-.]", "_", sysconfig.get_platform())
    wheel = scratch / "new" / f"llama_cpp_python-{plan.version}-py3-none-{tag}.whl"
    commands = [venv.making(place), *build_commands(plan, venv.python_of(place), scratch)]
    if options.wheel_out:
        commands.append(Command("copying", ("cp", str(wheel), str(options.wheel_out))))
    else:
        commands.append(venv.installing_engine(wheel))
        commands += [venv.installing_module()] if plan.is_prebuilt else []
        commands.append(venv.installing_project(dev=options.dev))
        commands.append(venv.installing_models(dev=options.dev))
    print(*(command.as_shell() for command in commands), sep="\n")


def _step(command: Command) -> None:
    name = re.sub("[^a-z0-9]+", "-", command.label.lower()).strip("-")
    run(command, LOGS / f"{name}.log")


def _stop_at_obstacles(plan: Plan) -> None:
    if plan.obstacles:
        raise SetupError(plan.obstacles[0])


# --- what is said ----------------------------------------------------------------------------


def _explain(plan: Plan, facts: Facts, engine_is: str | None) -> None:
    say("setting up localspec")
    say(f"  backend   {plan.backend}: {plan.reason}")
    cores = f"{plan.n_jobs} core{'s' if plan.n_jobs > 1 else ''}"
    state = engine_is or f"to be built on {cores}; takes minutes, once"
    say(f"  engine    {_engine_name(plan)}, {state}")
    if facts.compiler and not engine_is:
        say(f"  compiler  {facts.compiler.cxx} ({facts.compiler.family} {facts.compiler.version})")
    for note in plan.notes:
        say(f"  note      {note}")


def _engine_name(plan: Plan) -> str:
    return f"llama-cpp-python {plan.version} for {plan.backend}"


@contextlib.contextmanager
def _alone() -> Generator[None]:
    """Two set-ups of one checkout at a time would trip over each other: the second waits."""
    try:
        import fcntl  # noqa: PLC0415  (not there on Windows)
    except ImportError:
        yield
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another scripts/setup is at work in this checkout: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
