#!/bin/sh
# run_sanitized.sh DIRECTORY COMMAND...: runs a command. Reports of AddressSanitizer and ThreadSanitizer, its
# own and those of its children, go to files in DIRECTORY and are shown at the end. Any report is a failure.
# UndefinedBehaviorSanitizer has no such files beside the others: it ends the process, with its report on stderr.
set -u
reports=$1
shift
rm -rf "$reports"
mkdir -p "$reports"

# CPython leaks at exit, so leak checks are for the C++ tests only.
export ASAN_OPTIONS="log_path=$reports/asan:detect_leaks=0:detect_stack_use_after_return=1:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"
export TSAN_OPTIONS="log_path=$reports/tsan:${TSAN_OPTIONS:-}"
"$@"
status=$?

for report in "$reports"/*; do
  [ -e "$report" ] || continue
  echo "== $report"
  cat "$report"
  status=1
done
exit "$status"
