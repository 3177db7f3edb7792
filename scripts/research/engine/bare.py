"""A bare ctypes decode of given tokens, in a process of its own: what localspec's loop is measured
against.

    python bare.py MODEL N_CTX N_THREADS < TOKENS

TOKENS is JSON, {"prompt": [...], "reply": [...]}. Prints {"decode_s", "peak_rss_bytes"}: the
seconds from the first to the last token of the reply, and the process's peak resident memory. The
settings are those of localspec's engine.
"""

import ctypes
import json
import sys
from time import perf_counter

import llama_cpp.llama_cpp as C

from localspec.hardware.detect import peak_resident_bytes


def main() -> None:
    path, n_ctx, n_threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    tokens = json.load(sys.stdin)
    silent = C.llama_log_callback(lambda level, text, data: None)
    C.llama_log_set(silent, ctypes.c_void_p(0))
    C.llama_backend_init()
    model = C.llama_model_load_from_file(path.encode(), C.llama_model_default_params())
    params = C.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_batch = params.n_ubatch = 512
    params.n_outputs_max = 1
    params.n_threads = params.n_threads_batch = n_threads
    params.swa_full = False
    context = C.llama_init_from_model(model, params)
    batch = C.llama_batch_init(512, 0, 1)
    times = []
    position = 0
    for chunk in [tokens["prompt"], *([token] for token in tokens["reply"][:-1])]:
        batch.n_tokens = len(chunk)
        for i, token in enumerate(chunk):
            batch.token[i] = token
            batch.pos[i] = position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i == len(chunk) - 1
        assert C.llama_decode(context, batch) == 0
        C.llama_synchronize(context)
        position += len(chunk)
        times.append(perf_counter())
    print(json.dumps({"decode_s": times[-1] - times[0], "peak_rss_bytes": peak_resident_bytes()}))


if __name__ == "__main__":
    main()
