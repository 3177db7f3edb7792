"""The child process of `engine.backends`: how long one device takes for a short reply.

    python -m localspec.engine.llama.backend_prober BACKEND NAME

It prints the seconds of a prompt and an answer with a random model, whose passes are long enough to
be more than overhead, and nothing where there is no such device. NAME is a device's, or a worker's
address where BACKEND is rpc.
"""

import sys

from localspec.engine.llama.devices import reported
from localspec.engine.llama.overhead import compile_passes, loaded
from localspec.engine.probe import GRAPHICS, ProbeSetting
from localspec.engine.threads import default_threads
from localspec.model.synthetic import Shape

SHAPE = Shape(n_embd=1024, n_heads=16, n_kv_heads=4, n_ff=4096)
N_LAYERS, WEIGHT_TYPE = 4, "Q4_K"
N_PROMPT, N_ANSWER, N_TIMED = 128, 128, 16


def main() -> int:
    backend, name = sys.argv[1:]
    if backend != "rpc" and name not in {device.name for device in reported()}:
        return 1  # the engine would compute on the processor
    device, workers = ((), (name,)) if backend == "rpc" else ((name,), ())
    setting = ProbeSetting(default_threads(), GRAPHICS, True, device, workers)
    with loaded(setting, SHAPE, N_LAYERS, WEIGHT_TYPE) as timer:
        compile_passes(timer, [(1, 0), (N_PROMPT, 0)])
        prompt_s = timer.seconds(N_PROMPT, 0, turn=1)
        answer_s = N_ANSWER * timer.token_s(N_TIMED, 0)
    sys.stdout.write(f"{prompt_s + answer_s}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
