"""Run language models at the full speed of this machine, and see where the time goes.

The public names load at their first use: `import localspec` alone loads neither the engine nor
NumPy. docs/reference/python.md describes them.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from localspec.api import Model, load, predict, tune
    from localspec.engine.sampling import Sampling
    from localspec.errors import EngineError, HardwareError, LocalspecError, ModelError, UserError
    from localspec.forecast.forecast import Forecast
    from localspec.session.reply import Reply
    from localspec.settings import Settings

__version__ = "0.1.0"
__all__ = [
    "EngineError",
    "Forecast",
    "HardwareError",
    "LocalspecError",
    "Model",
    "ModelError",
    "Reply",
    "Sampling",
    "Settings",
    "UserError",
    "load",
    "predict",
    "tune",
]
_ERRORS = "localspec.errors"
_HOMES = {
    "EngineError": _ERRORS,
    "Forecast": "localspec.forecast.forecast",
    "HardwareError": _ERRORS,
    "LocalspecError": _ERRORS,
    "ModelError": _ERRORS,
    "Reply": "localspec.session.reply",
    "Sampling": "localspec.engine.sampling",
    "Settings": "localspec.settings",
    "UserError": _ERRORS,
}
"""The module of a name; the others are in `localspec.api`."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "localspec.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
