"""What llvm-mca makes of the innermost loops: cycles, for processors that are not at hand.

python -m benchmarks.mca --isa neon --cc aarch64-linux-gnu-gcc --cpu neoverse-n1 neoverse-v1
python -m benchmarks.mca --isa avx2 --cc gcc --cpu znver3

The kernels of one instruction set are compiled as they are, in float32, with a function for each
loop; of each, the loop with the most multiply-adds is taken. llvm-mca believes all data to be in
the level-1 cache, and no load to wait for a store.
"""

import argparse
import pathlib
import re
import shlex
import subprocess

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = "-O3 -std=c11 -ffp-contract=off -w"  # those of setup.py, as far as they matter here
TARGETS = {"neon": "", "avx2": "-mavx2 -mfma -mf16c"}
LOOPS = r"""
#include "csrc/targets/%s_f32.c"
void product_block(const real *a, ptrdiff_t row, ptrdiff_t col, const real *b, ptrdiff_t b_row,
                   real *c, ptrdiff_t c_row, ptrdiff_t K)
{
    register_block(a, row, col, b, b_row, c, c_row, K, 1, TILE_ROWS, TILE_VECS, ATTNC_AS_COMPUTED);
}
void exponentials(real *s, ptrdiff_t n, real shift)
{
    for (ptrdiff_t j = 0; j < n; j += 4 * LANES) {
        ATTNC_UNROLL
        for (int x = 0; x < 4; x++)
            softmax_vector(s + j + x * LANES, v_set1(shift));
    }
}
#define ADDITIVE(NAME, FORM)                                                                       \
    void NAME(const workspace *w, ptrdiff_t nj)                                                    \
    {                                                                                              \
        additive_rows(w, 0, nj, ADDITIVE_ROWS, FORM);                                              \
    }                                                                                              \
    void NAME##_bwd(const real *q, const real *k, ptrdiff_t Dp, const real *dS, ptrdiff_t nj,      \
                    real *dq, real *dk, real *dv)                                                  \
    {                                                                                              \
        v_store(dv, additive_block_bwd(q, k, Dp, dS, 1, nj, dq, dk, ADDITIVE_BWD_ROWS, FORM));     \
    }
ADDITIVE(additive, FORM_EXP)
ADDITIVE(additive_small, FORM_SMALL)
/* What one step of each loop does: vectors of products, exponentials, or terms. */
const int vectors_product_block = TILE_ROWS * TILE_VECS, vectors_exponentials = 4;
const int vectors_additive = ADDITIVE_ROWS * ADDITIVE_KEYS * SHARE;
const int vectors_additive_small = ADDITIVE_ROWS * ADDITIVE_KEYS * SHARE;
const int vectors_additive_bwd = ADDITIVE_BWD_ROWS, vectors_additive_small_bwd = ADDITIVE_BWD_ROWS;
"""
BRANCH = re.compile(r"(?:b|b\.?(?:eq|ne|cs|hs|cc|lo|mi|pl|hi|ls|ge|lt|gt|le)|cbn?z|tbn?z|j\w+)\s")
MULTIPLY_ADD = re.compile(r"fml[as]\b|vfn?m(?:add|sub)")


def assembly(isa, compiler):
    """The loops of LOOPS as the compiler's lines."""
    command = [*shlex.split(compiler), *FLAGS.split(), *TARGETS[isa].split()]
    done = subprocess.run(
        [*command, f"-I{ROOT}", "-S", "-x", "c", "-o", "-", "-"],
        input=LOOPS % isa,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def loops(lines):
    """(function, instructions) of every loop without a branch inside."""
    function = label = None
    body = []
    for line in map(str.strip, lines):
        if name := re.match(r"([.\w]+):", line):
            if not name[1].startswith("."):
                function = name[1]
            label, body = name[1], []
        elif line and line[0] not in ".#/":
            body.append(line)
            if BRANCH.match(line):
                if label is not None and re.search(rf"{re.escape(label)}(?!\w)", line):
                    yield function, body
                label, body = None, []


def cycles(body, mca, cpu, steps=1000):
    """Of one step of the loop, when it has run for a while."""
    command = [*mca, f"-mcpu={cpu}", f"-iterations={steps}"]
    done = subprocess.run(command, input="\n".join(body), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(re.search(r"Total Cycles:\s+(\d+)", done.stdout)[1]) / steps


def main():
    parser = argparse.ArgumentParser(description="Cycles of the innermost loops by llvm-mca.")
    parser.add_argument("--isa", choices=TARGETS, default="neon")
    parser.add_argument("--cc", default="cc", help="the compiler, with options of its own")
    parser.add_argument("--mca", default="llvm-mca", help="its name, such as llvm-mca-19")
    parser.add_argument("--cpu", nargs="+", required=True, help="processors, as llvm-mca has them")
    options = parser.parse_args()
    text = assembly(options.isa, options.cc)
    vectors = dict(re.findall(r"^vectors_(\w+):\s+\.(?:word|long)\s+(\d+)", text, re.M))
    inner = {}
    for function, body in loops(text.splitlines()):
        count = sum(MULTIPLY_ADD.match(line) is not None for line in body)
        if function in vectors and count > inner.get(function, (0, body))[0]:
            inner[function] = count, body
    mca = [options.mca, "-mtriple=" + ("aarch64" if options.isa == "neon" else "x86_64")]
    head = ["loop", "vectors", "instructions", "multiply-adds", "on the stack", *options.cpu]
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for name, (count, body) in inner.items():
        n, stack = int(vectors[name]), sum("[sp" in line or "(%rsp" in line for line in body)
        times = (f"{cycles(body, mca, cpu) / n:.2f}" for cpu in options.cpu)
        print("| " + " | ".join(map(str, [name, n, len(body), count, stack, *times])) + " |")


if __name__ == "__main__":
    main()
