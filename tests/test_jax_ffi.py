"""What XLA and the handlers of attnc agree on: the layout of structs, threads, devices."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

jax = pytest.importorskip("jax")

ROOT = pathlib.Path(__file__).parents[1]
FFI = ROOT / "csrc" / "jax" / "ffi.h"

# Ours, theirs, and the members that have other names: (ours, theirs).
STRUCTS = {
    "attnc_ffi_extension": ("XLA_FFI_Extension_Base", ["struct_size", "type", "next"]),
    "attnc_ffi_version": (
        "XLA_FFI_Api_Version",
        [
            ("extensions", "extension_start"),
            ("major", "major_version"),
            ("minor", "minor_version"),
        ],
    ),
    "attnc_ffi_metadata": (
        "XLA_FFI_Metadata",
        [("version", "api_version"), "traits", "state_type_id"],
    ),
    "attnc_ffi_metadata_extension": (
        "XLA_FFI_Metadata_Extension",
        [("extension", "extension_base"), "metadata"],
    ),
    "attnc_ffi_buffer": ("XLA_FFI_Buffer", ["dtype", "data", "rank", "dims"]),
    "attnc_ffi_span": ("XLA_FFI_ByteSpan", [("data", "ptr"), ("size", "len")]),
    "attnc_ffi_scalar": ("XLA_FFI_Scalar", ["dtype", "value"]),
    "attnc_ffi_array": ("XLA_FFI_Array", ["dtype", "size", "data"]),
    "attnc_ffi_values": ("XLA_FFI_Args", ["size", "types", ("values", "args")]),
    "attnc_ffi_attributes": ("XLA_FFI_Attrs", ["size", "types", "names", ("values", "attrs")]),
    "attnc_ffi_error_create_args": ("XLA_FFI_Error_Create_Args", ["message", ("code", "errc")]),
    "attnc_ffi_error_destroy_args": ("XLA_FFI_Error_Destroy_Args", ["error"]),
    "attnc_ffi_schedule_args": (
        "XLA_FFI_ThreadPool_Schedule_Args",
        [("context", "ctx"), "task", "data"],
    ),
    "attnc_ffi_num_threads_args": (
        "XLA_FFI_ThreadPool_NumThreads_Args",
        [("context", "ctx"), ("threads", "num_threads")],
    ),
}
# These are longer in the header.
BEGINNINGS = {
    "attnc_ffi_api": (
        "XLA_FFI_Api",
        [
            ("version", "api_version"),
            ("error_create", "XLA_FFI_Error_Create"),
            ("error_destroy", "XLA_FFI_Error_Destroy"),
            ("schedule", "XLA_FFI_ThreadPool_Schedule"),
            ("num_threads", "XLA_FFI_ThreadPool_NumThreads"),
        ],
    ),
    "attnc_ffi_call": (
        "XLA_FFI_CallFrame",
        [
            *("api", "stage"),
            *(("context", "ctx"), ("arguments", "args"), ("results", "rets")),
            ("attributes", "attrs"),
        ],
    ),
}
CONSTANTS = {
    "MAJOR": "API_MAJOR",
    "MINOR": "API_MINOR",
    "METADATA": "Extension_Metadata",
    "EXECUTE": "ExecutionStage_EXECUTE",
    "BUFFER": "ArgType_BUFFER",
    "ARRAY": "AttrType_ARRAY",
    "SCALAR": "AttrType_SCALAR",
    "STRING": "AttrType_STRING",
    "INVALID_ARGUMENT": "Error_Code_INVALID_ARGUMENT",
    "RESOURCE_EXHAUSTED": "Error_Code_RESOURCE_EXHAUSTED",
}
DTYPES = "PRED S8 S16 S32 S64 U8 U16 U32 U64 F16 F32 F64 BF16".split()


def assertions():
    """Every size, offset and constant of csrc/jax/ffi.h against the header."""
    for ours, (theirs, members) in (STRUCTS | BEGINNINGS).items():
        if ours in STRUCTS:
            yield f"sizeof({ours}) == sizeof({theirs})"
        for member in members:
            mine, other = (member, member) if isinstance(member, str) else member
            yield f"offsetof({ours}, {mine}) == offsetof({theirs}, {other})"
            yield f"sizeof((({ours} *)0)->{mine}) == sizeof((({theirs} *)0)->{other})"
    yield "offsetof(attnc_ffi_values, values) == offsetof(XLA_FFI_Rets, rets)"
    for ours, theirs in CONSTANTS.items():
        yield f"(int)ATTNC_FFI_{ours} == (int)XLA_FFI_{theirs}"
    yield "(int)ATTNC_FFI_BUFFER == (int)XLA_FFI_RetType_BUFFER"
    for dtype in DTYPES:
        yield f"(int)ATTNC_FFI_{dtype} == (int)XLA_FFI_DataType_{dtype}"


def test_layout_of_structs(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    header = pathlib.Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    if not compiler or not header.exists():
        pytest.skip("needs a C compiler and the header of jaxlib")
    checks = [f'_Static_assert({check}, "{check}");' for check in assertions()]
    source = tmp_path / "layout.c"
    source.write_text("\n".join(['#include "xla/ffi/api/c_api.h"', f'#include "{FFI}"', *checks]))
    command = [compiler, "-std=c11", "-fsyntax-only", "-I", jax.ffi.include_dir(), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_struct_and_constant_is_checked():
    text = re.sub(r"/\*.*?\*/", "", FFI.read_text(), flags=re.DOTALL)
    structs = set(re.findall(r"^} (attnc_ffi_\w+);", text, flags=re.MULTILINE))
    assert structs == set(STRUCTS) | set(BEGINNINGS)
    constants = set(re.findall(r"ATTNC_FFI_(\w+) =", text))
    assert constants == set(CONSTANTS) | set(DTYPES)


def run_alone(program, flags="", cpus=None):
    """Run a program in a process of its own, which has a minute to end."""
    head = """
        import numpy as np, jax, jax.numpy as jnp, attnc, attnc.jax
        rng = np.random.default_rng(0)
        normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    """
    text = textwrap.dedent(head) + textwrap.dedent(program)
    command = [sys.executable, "-c", text]
    if cpus is not None:
        if not shutil.which("taskset"):
            pytest.skip("needs taskset")
        command = ["taskset", "-c", cpus, *command]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


LARGE = """
    q = normal(2, 4, 300, 64)
    f = jax.jit(jax.value_and_grad(
        lambda q: (attnc.jax.dot_product_attention(q, q, q, causal=True) ** 2).sum()))
    wanted = attnc.dot_product_attention(q, q, q, causal=True)
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: f(q), range(40)))
    for value, gradient in found:
        assert np.array_equal(gradient, found[0][1])
    assert np.array_equal(jax.jit(attnc.jax.dot_product_attention, static_argnames="causal")(
        q, q, q, causal=True), wanted)
"""


@pytest.mark.parametrize(
    "flags, cpus",
    [("", "0"), ("--xla_cpu_multi_thread_eigen=false", None), ("", None)],
    ids=["one processor", "one thread", "all"],
)
def test_no_pool_is_too_small(flags, cpus):
    run_alone(LARGE, flags, cpus)


def test_no_memory_is_left_when_a_call_returns():
    program = """
    from attnc import _core
    q = normal(2, 4, 300, 64)
    f = jax.jit(jax.value_and_grad(lambda q: attnc.jax.dot_product_attention(q, q, q).sum()))
    jax.block_until_ready(f(q))
    before = _core.allocation_count()
    for _ in range(100):
        jax.block_until_ready(f(q))
        assert _core.allocation_count() == before
    """
    run_alone(program)


def test_shard_map():
    program = """
    from jax.sharding import AxisType, PartitionSpec as P
    mesh = jax.make_mesh((2,), ("b",), axis_types=(AxisType.Auto,))
    q, k, v, w = normal(4, 5, 6), normal(1, 5, 6), normal(4, 5, 6), normal(6, 6)
    attention = attnc.jax.multiplicative_attention
    split = (P("b"), P(), P("b"), P())

    def total(*a):
        return (attention(*a) ** 2).sum()

    def sharded(*a):
        f = lambda *a: jax.lax.psum(total(*a), "b")
        return jax.shard_map(f, mesh=mesh, in_specs=split, out_specs=P())(*a)

    def gradients_inside(*a):
        f = lambda *a: jax.grad(total, (0, 1, 2, 3))(*a)
        return jax.shard_map(f, mesh=mesh, in_specs=split, out_specs=split)(*a)

    wanted = jax.grad(total, (0, 1, 2, 3))(q, k, v, w)
    for found in (jax.jit(jax.grad(sharded, (0, 1, 2, 3))), jax.jit(gradients_inside)):
        for x, y in zip(found(q, k, v, w), wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    arrays = q, k, v, w
    along = tuple(jnp.asarray(normal(*x.shape)) for x in arrays)
    def second(f):
        gradient = jax.grad(f, (0, 1, 2, 3))
        return jax.jit(lambda a: jax.jvp(gradient, a, along)[1])(arrays)
    np.testing.assert_allclose(
        jax.jit(lambda a: jax.jvp(sharded, a, along)[1])(arrays),
        jax.jvp(total, arrays, along)[1], rtol=1e-4)
    for x, y in zip(second(sharded), second(total), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-3)
    norm = lambda x, w: jax.shard_map(
        attnc.jax.layer_norm, mesh=mesh, in_specs=(P("b"), P()), out_specs=P("b"))(x, w)
    total = lambda f: lambda x, w: (f(x, w) ** 3).sum()
    found = jax.jit(jax.grad(total(norm), (0, 1)))(q, w[0])
    wanted = jax.grad(total(attnc.jax.layer_norm), (0, 1))(q, w[0])
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    """
    run_alone(program, "--xla_force_host_platform_device_count=2")
