#!/bin/sh
# build.sh V2-TOOLS V3-TOOLS: rebuilds the fixtures. Each argument is a folder with the `as`, `ld`, `readelf` and `strip` of one GNU
# binutils: the first of 2.44, the second of 2.47 or later.
set -eu
v2=$(cd "$1" && pwd) v3=$(cd "$2" && pwd)
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# build TOOLS NAME SOURCE OPTION...
build() {
	tools=$1 name=$2 source=$3
	shift 3
	gcc -S -O2 -fPIC -fomit-frame-pointer -fno-optimize-sibling-calls -fno-ident -Wall -Wextra "src/$source.c" -o "$scratch/$name.s"
	"$tools/as" --64 --gsframe "$scratch/$name.s" -o "$scratch/$name.o"
	# gcc finds the linker by -B; -fuse-ld=bfd keeps it from choosing another.
	mkdir -p "$scratch/bin"
	ln -sf "$tools/ld" "$scratch/bin/ld"
	gcc -B"$scratch/bin" "$scratch/$name.o" "$@" -Wl,--hash-style=gnu -Wl,-z,now -o "$name"
	"$tools/strip" --strip-debug "$name"
	"$tools/readelf" --sframe "$name" >"$name.readelf.txt"
}

library="-shared -nostdlib -Wl,-z,separate-code"
build "$v3" calls.v3.so calls $library
build "$v2" calls.v2.so calls $library
build "$v3" caller.v3 caller -pie
build "$v3" fixed.v3 caller -no-pie
