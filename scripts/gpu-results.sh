#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# gpu-results.sh - put one section into the file of what a GPU said.
#
#   gpu-results.sh FILE SECTION <TEXT
#
# The text replaces what stood between "<!-- SECTION -->" and "<!-- /SECTION -->";
# a file that is not there is made, with all its sections and nothing in them.
set -eu
file=$1 section=$2

# What is to be reached, kvbench(1), before anything is measured.
goals() {
	echo '| what | goal | measured |'
	echo '|---|---|---|'
	while read -r line; do echo "| $line | nothing measured yet |"; done <<'END'
GPU to host, blocks of 2 MiB, beside one large copy | >= 0.92
host to GPU, blocks of 2 MiB, beside one large copy | >= 0.92
GPU to host, blocks of 64 KiB, batched, beside one large copy | >= 0.75
host to GPU, blocks of 64 KiB, batched, beside one large copy | >= 0.75
attention on the pool's memory beside cuMemAlloc memory | >= 0.99
attention of decode, 64 sequences of 8192 tokens, beside a device copy | >= 0.8
kvinfer's first token, 10240 tokens of prefix, warm beside cold | <= 0.05
END
}

if [ ! -e "$file" ]; then
	mkdir -p "$(dirname "$file")"
	{
		echo '# What a GPU said'
		echo
		echo 'Written by `make check-gpu` and `make bench-gpu` where there is an NVIDIA GPU, or by'
		echo 'the kit of `make gpu-kit`. Each run replaces its own sections and leaves the others.'
		for s in Machine Questions Conformance Integration Goals Benchmark; do
			echo
			echo "## $s"
			echo
			echo "<!-- ${s,,} -->"
			[ $s = Goals ] && goals || echo 'Nothing measured yet: no machine with a GPU has run it.'
			echo "<!-- /${s,,} -->"
		done
	} >"$file"
fi
if ! grep -qxF "<!-- $section -->" "$file"; then
	echo "gpu-results.sh: $file has no section $section" >&2
	exit 1
fi
text=$(mktemp)
trap 'rm -f "$text"' EXIT
cat >"$text"
awk -v start="<!-- $section -->" -v end="<!-- /$section -->" -v text="$text" '
$0 == start {
	print
	while ((getline line <text) > 0)
		print line
	skip = 1
}
$0 == end { skip = 0 }
!skip && $0 != start { print }' "$file" >"$file.new"
mv "$file.new" "$file"
