"""Contexts with layers on workers: each plans anew when memory of another one comes or goes.

A worker forgets the graph that it computed last as soon as any buffer on it is freed
(`rpc_server::free_buffer` of ggml-rpc.cpp in 0.5.0). The client does not know: it asks for the same
graph again, the worker hangs up, and libllama ends the process. A context that plans anew sends the
whole graph.
"""

from localspec.engine.llama.binding import C, Handle

_contexts: set[Handle] = set()


def keep(context: Handle) -> None:
    """A new context has layers on workers."""
    plan_anew()
    _contexts.add(context)


def free(context: Handle | None = None, model: Handle | None = None) -> None:
    """A context and weights, wherever they are."""
    if context:
        _contexts.discard(context)
        C.llama_free(context)
    if model:
        C.llama_model_free(model)
    plan_anew()


def plan_anew() -> None:
    """Let no context ask for the graph of its last pass again.

    No control vector is what each has; to say so makes libllama plan before the next pass, which
    takes milliseconds.
    """
    for context in _contexts:
        C.llama_set_adapter_cvec(context, None, 0, 0, 0, 0)
