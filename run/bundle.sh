#!/bin/bash
# Packs a build into a folder that runs on another x86-64 Linux, which needs nothing of ours installed: for a GPU, its driver and CUDA's libcublasLt alone.
#
#   make bundle                        # builds for x86-64-v3 (AVX2) and packs; run/bundle.sh BUILD OUT packs a build that is there
#
# Cost: a build, then 20 seconds. Result: OUT/flanmoe-COMMIT/ and OUT/flanmoe-COMMIT.tar.gz. The folder is laid out as the repository after a build, so every
# script and command of the READMEs works in it (make does not). build/flanmoe and its neighbours are scripts that start bin/* with lib/*, the C library and its
# loader included, so the system's may be older (down to kernel 3.2). Where the program links Open MPI, its plugins and mpirun come with it.
set -e
cd "$(dirname "$0")/.."
from=${1:?usage: run/bundle.sh BUILD OUT} out=${2:?usage: run/bundle.sh BUILD OUT}
name=flanmoe-$(git describe --always --dirty 2> /dev/null || "$from/flanmoe" --version | cut -d' ' -f2)
folder=$out/$name
rm -rf "$folder" && mkdir -p "$folder/build/bin" "$folder/build/lib" "$folder/build/licences"

programs=() libraries=()
for program in flanmoe flanmoe-test ops-bench; do
    install "$from/$program" "$folder/build/bin/$program"
    programs+=("$program")
done
cp "$from/faults.so" "$folder/build/"

# Open MPI finds its plugins and its texts below OPAL_PREFIX, each at the place where the distribution put them below /usr.
if ldd "$from/flanmoe" | grep -q libmpi; then
    plugins=$(ompi_info --path pkglibdir --parsable | cut -d: -f3) texts=$(ompi_info --path pkgdatadir --parsable | cut -d: -f3) mpi=$folder/build/openmpi
    mkdir -p "$mpi/${plugins#/usr/}" "$mpi/${texts#/usr/}" "$mpi/bin" "$folder/build/lib/pmix"
    cp "$plugins"/mca_*.so "$mpi/${plugins#/usr/}/"
    cp -r "$texts/." "$mpi/${texts#/usr/}/"
    libraries+=("$plugins"/mca_*.so)
    for plugin in /usr/lib/*/pmix*/lib/pmix/*.so /usr/lib/*/ucx/*.so.0; do
        [ -e "$plugin" ] || continue
        case $plugin in */ucx/*) target=$folder/build/lib/ucx ;; *) target=$folder/build/lib/pmix ;; esac
        mkdir -p "$target" && cp -L "$plugin" "$target/"
        libraries+=("$plugin")
    done
    for program in mpirun orted; do
        install "$(realpath "$(command -v $program)")" "$folder/build/bin/$program"
        programs+=("$program")
    done
    ln -s ../../orted "$mpi/bin/orted"
fi

# All libraries that these need, the C library's own parts that a driver may ask for, and what they are licensed under.
missing=$(ldd "${programs[@]/#/$folder/build/bin/}" "${libraries[@]}" | grep 'not found' | sort -u || true)
[ -z "$missing" ] || { echo "bundle: these libraries are not installed here:$missing" >&2; exit 1; }
needed=$(ldd "${programs[@]/#/$folder/build/bin/}" "${libraries[@]}" | grep -oE '/[^ :]+\.so[^ :]*' | grep -v "^$folder\|mca_\|^/usr/lib/.*/ucx/" | sort -u)
libc=$(dirname "$(realpath "$(ldd "$from/flanmoe" | awk '/libc.so.6/ {print $3}')")")
for part in libdl.so.2 libpthread.so.0 librt.so.1 libresolv.so.2 libutil.so.1 libnss_files.so.2 libnss_dns.so.2; do needed+=$'\n'$libc/$part; done
for library in $(sort -u <<< "$needed"); do
    target=$folder/build/lib/$(basename "$library")
    [ -e "$target" ] || cp -L "$library" "$target"
    package=$(dpkg-query -S "$(realpath "$library")" 2> /dev/null | head -1 | cut -d: -f1)
    [ ! -e "/usr/share/doc/$package/copyright" ] || cp -L "/usr/share/doc/$package/copyright" "$folder/build/licences/$package"
done

for program in "${programs[@]}"; do
    cat > "$folder/build/$program" << 'END'
#!/bin/sh
# Starts the program of this file's name in bin/ with the loader and the libraries of this folder; behind them LD_LIBRARY_PATH and CUDA's usual folder.
self=$(readlink -f "$0")
here=${self%/*}
if [ -d "$here/openmpi" ]; then
    export OPAL_PREFIX="$here/openmpi" PMIX_MCA_mca_base_component_path="$here/lib/pmix"
    # Without a way to reach other machines mpirun would not start even ranks on this one.
    command -v ssh > /dev/null || command -v srun > /dev/null || export OMPI_MCA_plm=isolated
fi
exec "$here/lib/ld-linux-x86-64.so.2" --argv0 "$0" --library-path "$here/lib:${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/cuda/lib64" "$here/bin/${self##*/}" "$@"
END
    chmod +x "$folder/build/$program"
done
ln -s build/flanmoe "$folder/flanmoe"
[ ! -e "$folder/build/mpirun" ] || ln -s build/mpirun "$folder/mpirun"

find README.md LICENSE */README.md configs data run test -type f -not -name '*.[chp]*' -not -name '.*' | while read -r file; do
    install -D -m "$([ -x "$file" ] && echo 755 || echo 644)" "$file" "$folder/$file"
done
rm -f "$out/$name.tar.gz"
tar -C "$out" -czf "$out/$name.tar.gz" --owner=0 --group=0 "$name"
echo "$folder ($(du -sh "$folder" | cut -f1)), $out/$name.tar.gz ($(du -h "$out/$name.tar.gz" | cut -f1)): $(find "$folder/build/lib" -name '*.so*' | wc -l) libraries$(
    [ ! -e "$folder/build/openmpi" ] || echo ', Open MPI')"
