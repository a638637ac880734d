#!/bin/sh
# Checks a change of a fleet's repository: lint, resolve, plan against the last captures, rehearse what changed.
#
#   sh provision-ci.sh BASE [options of provision rehearse]      BASE: what is changed from, such as origin/main
#
# Run it in the repository. It changes no host and asks none. What it found is in ci-report/: summary.md (to post under
# the pull request), rehearsal.html, rehearsal.xml (JUnit) and the text of every step. It ends with 1 when a step failed.
# INVENTORY, CAPTURES and REPORT name other places; MATRIX_SOURCE and MATRIX_ROOT a source of signed matrix releases.
# RESOLVE_OPTIONS are those that the lock was made with, such as --unify.
# shellcheck disable=SC2317,SC2016,SC2086  # functions are called through step; fences are no commands; options are words
set -eu

base=${1:?usage: provision-ci.sh BASE [options of provision rehearse]}
shift
inventory=${INVENTORY:-inventory}
captures=${CAPTURES:-captures}
report=${REPORT:-ci-report}
lock=provision.lock
summary=$report/summary.md
bad=0

mkdir -p "$report"
: >"$summary"

# step NAME TITLE WORDS…: runs WORDS, keeps what they say in NAME.txt, and puts it into the summary, folded when all is well.
step() {
    name=$1 title=$2
    shift 2
    code=0
    "$@" >"$report/$name.txt" 2>&1 || code=$?
    cat "$report/$name.txt"
    if [ "$code" -eq 0 ]; then sign="✅" open="<details>"; else sign="❌" open="<details open>" bad=1; fi
    {
        printf '%s<summary>%s %s</summary>\n\n```\n' "$open" "$sign" "$title"
        sed "s/\`\`\`/'''/g" "$report/$name.txt" | head -n 200
        printf '```\n</details>\n\n'
    } >>"$summary"
}

digest_in() { sed -n 's/^  "matrix": "\([0-9a-f]*\)".*/\1/p' "$1"; }

# The lock must be what inventory, captures and matrix resolve to. Hosts without a capture keep their entries.
resolved() {
    cp "$lock" "$report/resolved.lock"
    set --
    for capture in "$captures"/*.json; do set -- "$@" --capture "$capture"; done
    provision resolve -i "$inventory" "$@" ${RESOLVE_OPTIONS:-} -o "$report/resolved.lock" || return
    cmp -s "$lock" "$report/resolved.lock" && return
    echo "error: $lock is not what its inventory, captures and matrix resolve to; what would differ:"
    diff -U0 "$lock" "$report/resolved.lock"
    return 1
}

planned() {
    set --
    for capture in "$captures"/*.json; do set -- "$@" --capture "$capture"; done
    provision plan -i "$inventory" "$@" --lock "$lock"
}

if ! git show "$base:$lock" >"$report/base.lock" 2>/dev/null; then
    echo "$base has no $lock: every host counts as new"
    printf '{"format": 1, "made_by": "none", "matrix": "%064d", "hosts": {}}\n' 0 >"$report/base.lock"
fi
before=$(digest_in "$report/base.lock")
after=$(digest_in "$lock")

if [ -n "${MATRIX_SOURCE:-}" ]; then
    # The former matrix too, to say what the new one moves; the one of the lock last, for it is the one to use.
    [ "$before" = "$after" ] || provision matrix update "$MATRIX_SOURCE" --trust-root "$MATRIX_ROOT" --release "$before" || true
    step matrix "the matrix of the lock" provision matrix update "$MATRIX_SOURCE" --trust-root "$MATRIX_ROOT" --lock "$lock"
fi
if [ "$before" != "$after" ] && [ -d ".provision/matrix/$before" ]; then
    step diff "what the new matrix moves" provision matrix diff "$before" in-use --lock "$report/base.lock"
fi
step lint "the matrix" provision matrix lint
step resolve "the lock is what it should be" resolved
step plan "plan against the last captures" planned

code=0
provision rehearse --from "$report/base.lock" --to "$lock" --html "$report/rehearsal.html" \
    --junit "$report/rehearsal.xml" --markdown "$report/rehearsal.md" "$@" >"$report/rehearse.txt" 2>&1 || code=$?
cat "$report/rehearse.txt"
[ "$code" -eq 0 ] || bad=1
if [ -s "$report/rehearsal.md" ]; then
    # What people look for stands first.
    { cat "$report/rehearsal.md"; echo; cat "$summary"; } >"$summary.new"
    mv "$summary.new" "$summary"
else
    printf '**Rehearsal** (exit code %s)\n\n```\n%s\n```\n' "$code" "$(tail -n 40 "$report/rehearse.txt")" >>"$summary"
fi
# A comment on GitHub takes 65,536 characters: whole lines, and no fence is left open.
if [ "$(wc -c <"$summary")" -gt 60000 ]; then
    LC_ALL=C awk '
        { size += length($0) + 1; if (size > 59000) exit; print; if (/^```/) open = !open }
        END { if (open) print "```"; print "</details>\n\nShortened: all of it is in the files of the report." }
    ' "$summary" >"$summary.new"
    mv "$summary.new" "$summary"
fi
exit "$bad"
