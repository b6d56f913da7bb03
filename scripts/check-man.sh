#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check-man.sh - mandoc's lint of every page, warnings included.
set -u
cd "$(dirname "$0")/.." || exit 1
shopt -s nullglob

if ! command -v mandoc >/dev/null; then
	echo "SKIP: mandoc is not installed"
	exit 77
fi
failed=0
for page in man/*.[1-8]; do
	if mandoc -T lint -W warning "$page"; then
		echo "ok $page"
	else
		echo "not ok $page"
		failed=1
	fi
done
exit $failed
