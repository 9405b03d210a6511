"""Stand-ins for the driver and CUDA's libraries: `cargo metadata | shims.py DIR` writes DIR/lib*.a.

Each function that the crate `cudarc` declares is a jump through a table. Its entry is empty until the first call, which opens
the library and looks the function up with all argument registers kept; a library that is not there ends the process with its
name, so whoever calls asks before (evaluator/src/device/cuda.rs). For x86-64 and the System V calling convention."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# The module of cudarc, the library's name for the linker, and the files that are tried.
LIBRARIES = [
    ("driver", "cuda", ["libcuda.so.1"]),
    ("nvrtc", "nvrtc", ["libnvrtc.so.13"]),
    ("curand", "curand", ["libcurand.so.10"]),
    ("cublas", "cublas", ["libcublas.so.13"]),
    ("cublaslt", "cublasLt", ["libcublasLt.so.13"]),
]
DECLARED = re.compile(r'extern "C" \{\s*(?:#\[[^\]]*\]\s*)*fn (\w+)\(')

OPENING = """
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const files[] = {{{files}, 0}};
static const char *const names[] = {{{names}}};
__attribute__((visibility("hidden"))) void *{name}_functions[{count}];

__attribute__((visibility("hidden"))) void *{name}_find(long number) {{
    void *library = 0;
    for (int i = 0; files[i] && !library; i++) library = dlopen(files[i], RTLD_NOW | RTLD_GLOBAL);
    if (!library) {{
        fprintf(stderr, "%s can't be opened: %s\\n", files[0], dlerror());
        abort();
    }}
    void *function = dlsym(library, names[number]);
    if (!function) {{
        fprintf(stderr, "%s has no function %s: it is of another version\\n", files[0], names[number]);
        abort();
    }}
    return {name}_functions[number] = function;
}}
"""

JUMP = """
    .globl {function}
    .type {function}, @function
{function}:
    movq {name}_functions+{offset}(%rip), %r11
    testq %r11, %r11
    je 1f
    jmp *%r11
1:  movl ${number}, %r11d
    jmp {name}_first
    .size {function}, . - {function}
"""

# Six integer and eight vector registers hold arguments; al says how many of the latter, r10 a static chain.
FIRST_CALL = """
    .type {name}_first, @function
{name}_first:
    pushq %rbp
    movq %rsp, %rbp
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %r9
    pushq %rax
    pushq %r10
    subq $128, %rsp
{save}
    movq %r11, %rdi
    call {name}_find
    movq %rax, %r11
{restore}
    addq $128, %rsp
    popq %r10
    popq %rax
    popq %r9
    popq %r8
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    popq %rbp
    jmp *%r11
    .section .note.GNU-stack, "", @progbits
"""


def compiled(folder, name, language, text):
    source, out = folder / f"{name}.{language}", folder / f"{name}-{language}.o"
    source.write_text(text)
    subprocess.run(["cc", "-c", "-O1", "-fPIC", "-o", out, source], check=True)
    return out


def main():
    out = Path(sys.argv[1])
    packages = json.load(sys.stdin)["packages"]
    (cudarc,) = [Path(package["manifest_path"]).parent for package in packages if package["name"] == "cudarc"]
    for module, name, files in LIBRARIES:
        declared = (cudarc / "src" / module / "sys" / "mod.rs").read_text()
        functions = sorted(set(DECLARED.findall(declared)))
        if not functions:
            sys.exit(f"{cudarc} declares no function of {name}: it is written otherwise than this script knows")
        quoted = lambda texts: ", ".join(f'"{text}"' for text in texts)
        opening = OPENING.format(name=name, files=quoted(files), names=quoted(functions), count=len(functions))
        jumps = "".join(
            JUMP.format(name=name, function=function, offset=8 * number, number=number)
            for number, function in enumerate(functions)
        )
        save = "\n".join(f"    movups %xmm{i}, {16 * i}(%rsp)" for i in range(8))
        restore = "\n".join(f"    movups {16 * i}(%rsp), %xmm{i}" for i in range(8))
        first = FIRST_CALL.format(name=name, save=save, restore=restore)
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            objects = [compiled(folder, name, "c", opening), compiled(folder, name, "s", "    .text" + jumps + first)]
            archive = out / f"lib{name}.a"
            archive.unlink(missing_ok=True)
            subprocess.run(["ar", "rcs", archive, *objects], check=True)
        print(f"lib{name}.a: {len(functions)} functions")


if __name__ == "__main__":
    main()
