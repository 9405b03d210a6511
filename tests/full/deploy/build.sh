# The image's own build line, and what its binaries ask of the image they lie in.
# shellcheck shell=bash

echo "== the image's build"
line=$(grep -oE 'cargo build [^&\\]*' "$deploy/Containerfile")
check "the Containerfile has one build line: $line" test "$(wc -l <<<"$line")" = 1
# shellcheck disable=SC2086
check "it builds" $line --quiet

# What debian:bookworm-slim has: glibc 2.36 and libgcc.
has='^(linux-vdso\.so\.1|libc\.so\.6|libm\.so\.6|libgcc_s\.so\.1|ld-linux-[a-z0-9-]*\.so\.[0-9])$'
needs_no_more() {
    local other newest
    [[ -x $1 ]] || {
        echo "    there is no $1"
        return 1
    }
    other=$(ldd "$1" | awk '{print $1}' | xargs -n1 basename | grep -vE "$has") || true
    newest=$(objdump -T "$1" | grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -1)
    [[ -z $other && -n $newest && $(printf '%s\nGLIBC_2.36\n' "$newest" | sort -V | tail -1) == GLIBC_2.36 ]] || {
        echo "    $1 needs $other $newest"
        return 1
    }
}
for binary in $(grep -oE 'target/release/[a-z-]+' "$deploy/Containerfile"); do
    binary=$bin/${binary##*/}
    check "$(basename "$binary") ($(du -m "$binary" 2>/dev/null | cut -f1) MB) needs nothing that the image lacks" needs_no_more "$binary"
done
copied=$(grep -oE '^COPY [^-].*' "$deploy/Containerfile")
check "the build takes the clone as .dockerignore leaves it ($copied)" test "$copied" = "COPY . ."
for path in .cargo Cargo.toml Cargo.lock $(python3 -c 'import tomllib; print(*tomllib.load(open("Cargo.toml", "rb"))["workspace"]["members"])'); do
    check "  $path is in it" grep -qx "!${path%%/*}" "$deploy/Containerfile.dockerignore"
done

echo "== the image for cards"
# Its build is what tests/full/cuda.sh does.
check "it builds by evaluator/cuda/build.sh" grep -qE '^    evaluator/cuda/build\.sh /out$' "$deploy/Containerfile.cuda"
check "  which is there" test -x evaluator/cuda/build.sh
check "  from the same files" cmp "$deploy/Containerfile.dockerignore" "$deploy/Containerfile.cuda.dockerignore"
check "  with the same Rust" test "$(grep -m1 ^FROM "$deploy/Containerfile")" = "$(grep -m1 ^FROM "$deploy/Containerfile.cuda")"
release=$(grep -oE 'nvidia-cuda-nvcc==[0-9]+\.[0-9]+' evaluator/cuda/toolkit.sh | grep -oE '[0-9]+\.[0-9]+$')
libraries=$(grep -oE 'nvidia/cuda:[0-9]+\.[0-9]+|lib(cublas|curand)-[0-9]+-[0-9]+' "$deploy/Containerfile.cuda" | grep -oE '[0-9]+[.-][0-9]+$' | tr - . | sort -u)
check "its base and libraries are of the compiler's release ($release)" test "$libraries" = "$release"
