"""ONNX Runtime sessions: the one place where they are made.

Its threads don't spin (a 10 Hz model took 49 % of a core spinning, 17 % not, at the same latency), and a
session runs where it was asked to run or not at all: `get_available_providers()` promises what the session
then may not do, so the session itself is asked, and with CUDA every node must be on the GPU.

CPU sessions of one process share one arena for what lies between nodes, so that graphs which run one after
another need the memory of the largest and not of all together; and no memory pattern is planned for it,
which would keep one block per graph and input shape as large as everything in it. Three fusion graphs made a
process 110 MB larger instead of 246 MB, in the same time. (No arena at all needs less between runs, but gets
its pages anew in each: a quarter more time.)
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping
from typing import Final, Literal

import onnxruntime as ort

from viewsync.errors import BundleError, UserError
from viewsync.manifest import TensorSpec

Provider = Literal["cpu", "cuda"]

_log = logging.getLogger(__name__)
_CPU: Final = "CPUExecutionProvider"
_PROVIDERS: Final = {"cpu": _CPU, "cuda": "CUDAExecutionProvider"}
_FALLBACK_REFUSED: Final = "fallback to CPU EP has been explicitly disabled"
_NO_CUDA_HERE: Final = (
    "provider cuda was asked for, but CUDA does not start; check that driver, CUDA and cuDNN are those that "
    "this onnxruntime-gpu wants, or set the provider to cpu"
)
_NO_CUDA_BUILD: Final = (
    "provider cuda was asked for, but the onnxruntime installed here has no CUDA; install onnxruntime-gpu "
    "in place of onnxruntime (extra hub-gpu, in a fresh environment), or set the provider to cpu"
)
_DTYPES: Final = {
    "tensor(uint8)": "uint8",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
}


def open_session(
    model: bytes, provider: Provider, threads: int, allow_cpu_fallback: bool = False
) -> ort.InferenceSession:
    """A session for an ONNX model's bytes, on that provider, with at most `threads` threads.

    Raises UserError where the provider is missing, or where CUDA would leave a node to the CPU (the operators
    are named), unless `allow_cpu_fallback`; BundleError where the model cannot be loaded at all.
    """
    if provider not in _PROVIDERS:
        raise UserError(f"provider {provider!r} is unknown; choose one of {', '.join(_PROVIDERS)}")
    if threads < 1:
        raise UserError(f"threads is {threads}; give at least 1")
    wanted = _PROVIDERS[provider]
    strict = provider == "cuda" and not allow_cpu_fallback
    if wanted not in ort.get_available_providers():
        if strict:
            raise UserError(_NO_CUDA_BUILD)
        providers = [_CPU]
    elif strict:
        providers = [wanted]
    else:
        providers = list(dict.fromkeys([wanted, _CPU]))
    if wanted in providers and provider == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds the CUDA libraries that pip installed

    options = session_options(threads)
    if providers == [_CPU]:
        _share_memory(options)
    if strict:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(model, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no class below Exception
        if strict and _FALLBACK_REFUSED in str(error):
            raise UserError(_why_on_cpu(model, threads)) from error
        raise BundleError(
            f"ONNX Runtime cannot load a model ({_one_line(error)}); export it again"
        ) from error
    if wanted not in session.get_providers():
        if strict:
            raise UserError(_NO_CUDA_HERE)
        _log.warning(
            "provider %s is not available: running on the CPU, as the configuration allows", provider
        )
    return session


def session_options(threads: int, record_placement: bool = False) -> ort.SessionOptions:
    """Options that every session has. `record_placement`: for `nodes_by_provider`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: what matters is raised
    if record_placement:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _share_memory(options: ort.SessionOptions) -> None:
    _shared_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False


@functools.cache
def _shared_arena() -> None:
    """Register this process's arena, once; it lives as long as the process."""
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(info, ort.OrtArenaCfg({}))


def nodes_by_provider(session: ort.InferenceSession) -> dict[str, list[str]]:
    """Operator types by execution provider, of a session opened with `record_placement`.

    Empty where this onnxruntime does not tell (before 1.24).
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    placed: dict[str, set[str]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        placed.setdefault(subgraph.ep_name, set()).update(node.op_type for node in subgraph.get_nodes())
    return {provider: sorted(operators) for provider, operators in placed.items()}


def running_on(session: ort.InferenceSession) -> Provider:
    """Where the session's nodes run first, by its own account: for metrics."""
    return "cuda" if _PROVIDERS["cuda"] in session.get_providers() else "cpu"


def check_signature(
    what: str,
    session: ort.InferenceSession,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
) -> None:
    """Compare the graph's inputs and outputs with the manifest's: names, dtypes, and every side that both
    fix.

    what: which file, for the message. Raises BundleError.
    """
    for kind, found, expected in (
        ("input", session.get_inputs(), inputs),
        ("output", session.get_outputs(), outputs),
    ):
        graph = {node.name: node for node in found}
        if set(graph) != set(expected):
            raise BundleError(
                f"{what} has {kind}s {', '.join(sorted(graph))}, its manifest says "
                f"{', '.join(sorted(expected))}; export the bundle again"
            )
        for name, spec in expected.items():
            dtype, shape = _DTYPES.get(graph[name].type, graph[name].type), graph[name].shape
            fits = len(shape) == len(spec.shape) and all(map(_side_fits, shape, spec.shape))
            if dtype != spec.dtype or not fits:
                raise BundleError(
                    f"{what}: {kind} {name} is {dtype} {shape}, its manifest says {spec.dtype} "
                    f"{list(spec.shape)}; export the bundle again"
                )


def _side_fits(found: int | str | None, stated: int | str) -> bool:
    """A stated number fits itself or a dynamic side; a stated name needs a dynamic side."""
    return not isinstance(found, int) or found == stated


def _why_on_cpu(model: bytes, threads: int) -> str:
    """Why a CUDA session has nodes on the CPU: opened once more with both, it tells."""
    options = session_options(threads, record_placement=True)
    session = ort.InferenceSession(model, options, providers=[_PROVIDERS["cuda"], _CPU])
    if _PROVIDERS["cuda"] not in session.get_providers():
        return _NO_CUDA_HERE
    operators = ", ".join(nodes_by_provider(session).get(_CPU, [])) or "some operators"
    return (
        f"provider cuda was asked for, but it would leave {operators} to the CPU; export the graph at "
        "another opset, allow the fallback, or set the provider to cpu"
    )


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:300]
