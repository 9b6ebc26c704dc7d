#!/bin/bash
# The rules of the house that a compiler does not check: which folder may include which, sizes of files and functions, no absolute paths, a README
# in every top-level folder. Prints every violation as file:line and exits 1 if there is any. Needs bash, awk and grep only.
cd "$(dirname "$0")/.." || exit 1

violations=$(
    # 1. Include rule. A folder may include itself and the folders listed here.
    declare -A may=(
        [core]="" [config]="core data/data_config.hpp" [ops]="core" [cpu]="ops core" [comm]="core" [model]="ops comm config core data/batch.hpp"
        [optim]="model ops comm config core" [data]="core" [checkpoint]="model optim comm config core" [train]="eval checkpoint optim model data comm ops config core"
        [eval]="data model ops comm config core" [cli]="train eval checkpoint optim model data comm ops cpu config core" [cuda]="ops comm core"
    )
    for folder in "${!may[@]}"; do
        path=src/$folder
        [ "$folder" = cuda ] && path=cuda
        [ -d "$path" ] || continue
        grep -rnE '^#include "' "$path" --include='*.hpp' --include='*.cpp' --include='*.cu' --include='*.cuh' |
            awk -v folder="$folder" -v may="${may[$folder]}" -F'"' '
                BEGIN { n = split(may, allowed, " ") }
                {
                    target = $2; ok = index(target, folder "/") == 1 || (folder == "cuda" && target !~ "/")
                    for (i = 1; i <= n; ++i) ok = ok || target == allowed[i] || index(target, allowed[i] "/") == 1
                    if (!ok) { split($1, at, ":"); print at[1] ":" at[2] ": " folder " may not include " target }
                }'
    done
    for folder in src/*/; do
        [ -n "${may[$(basename "$folder")]+known}" ] || echo "$folder: unknown folder; give it a line in the include rule of test/lint.sh"
    done
    grep -rnE '#include <(CLI/|toml)' src cuda | grep -vE '^src/(cli/[a-z_/.]+|main\.cpp|config/toml\.cpp|data/toml_value\.cpp):' | sed 's/$/  (CLI11 stays in cli\/, toml++ in config\/toml.cpp and data\/toml_value.cpp)/'
    grep -rnE '#include <(dnnl|oneapi)' src cuda --include='*.hpp' | sed 's/$/  (oneDNN stays in .cpp files)/'

    # Kernels: what the simulator has no twin for stays in the wrappers (cuda/README.md).
    grep -nE '\basm\b *(volatile)? *\(' cuda/*.cu cuda/*.cuh | grep -vE '^cuda/(device|mma|wgmma)\.cuh:' | sed 's/$/  (inline PTX stays in device.cuh, mma.cuh and wgmma.cuh)/'
    grep -nE '__shared__' cuda/*.cu cuda/*.cuh | grep -v '^cuda/device.cuh:' | sed 's/$/  (take shared memory through cuda::Shared)/'
    grep -nE '<<<' cuda/*.cu cuda/*.cuh cuda/*.hpp | sed 's/$/  (start kernels with cuda::launch)/'

    # 2. Sizes.
    code=$(find src cuda test -name '*.hpp' -o -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | sort)
    for file in $code $(find run test .ci -name '*.sh'); do
        lines=$(wc -l < "$file")
        [ "$lines" -lt 500 ] || echo "$file:1: $lines lines; files have fewer than 500"
    done
    [ "$(wc -l < src/main.cpp)" -lt 120 ] || echo "src/main.cpp:1: main.cpp only lists subcommands, in fewer than 120 lines"
    # shellcheck disable=SC2086
    awk -f test/function_lengths.awk $code

    # 3. Headers: a comment on top, one inclusion.
    for file in $(find src cuda -name '*.hpp' -o -name '*.cuh'); do
        head -1 "$file" | grep -q '^//' || echo "$file:1: begin with a comment that says purpose and approach"
        grep -q '^#pragma once' "$file" || echo "$file:1: no #pragma once"
    done

    # 4. Nothing knows one machine.
    grep -rnIE '(^|[^A-Za-z0-9_.*$}])/(home|root|work|mnt|scratch|Users)/' $(ls ./*.md 2> /dev/null) src cuda configs run test data .ci Makefile --exclude=lint.sh | sed 's/$/  (absolute path)/'
    grep -rnE '\.\./shared' src cuda configs data | sed 's/$/  (outside of the repository)/'

    # 5. Each top-level folder explains itself.
    for folder in src cuda configs data run test; do
        [ -f "$folder/README.md" ] || echo "$folder/README.md: missing; say what is here and how to add one"
    done
)
if [ -n "$violations" ]; then
    echo "$violations"
    echo "lint: $(echo "$violations" | wc -l) violations"
    exit 1
fi
echo "lint: no violations"
