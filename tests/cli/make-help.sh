#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `make help` names every target and every variable of the Makefile.
set -u
cd "${KVMD_SRC_DIR:-.}" || exit 1

help=$(make --no-print-directory help) || exit 1
failed=0

# named TEXT: it stands at the start of a line of the help, or in its first words
named() {
	if sed -n 's/^  \([^ ].*\)/\1/p' <<<"$help" | sed 's/  .*//; s/=[^ ]*//g; s/,//g' |
		tr ' ' '\n' | grep -qxF -- "$1"; then
		echo "ok $1"
	else
		echo "not ok $1 is not in make help"
		failed=1
	fi
}

for target in $(sed -n 's/^\.PHONY: *//p' Makefile | grep -vx FORCE); do
	named "$target"
done
for var in $(sed -nE 's/^([A-Za-z_]+) \?=.*/\1/p' Makefile |
	grep -vxE 'PKG_CONFIG|NVCC|INSTALL'); do
	named "$var"
done
exit $failed
