#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check-abi.sh - the wire's layout is the committed one.
set -eu
cd "$(dirname "$0")/.."

if [ ! -e tests/abi/wire.txt ]; then
	echo "not ok tests/abi/wire.txt is missing: make abi-update writes it"
	exit 1
fi
if scripts/abi-dump.sh include/kvmd/wire.h | diff -u tests/abi/wire.txt -; then
	echo "ok wire.h is tests/abi/wire.txt"
else
	echo "not ok wire.h changed: old clients break; if that is meant, make abi-update"
	exit 1
fi
