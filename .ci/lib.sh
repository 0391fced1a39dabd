# shellcheck shell=bash
# The steps of the gate: headlines, durations, the summary, and what happens
# when a step fails or can't be run. Sourced by `run`.

step_name=
step_start=0
gate_start=$SECONDS
summary=()
passed=

# step NAME: ends the step before it and begins this one.
step() {
    end_step
    step_name=$1
    step_start=$SECONDS
    printf '\n==> %s\n' "$step_name"
}

end_step() {
    if [[ -n $step_name ]]; then
        note "ok       $((SECONDS - step_start)) s" "$step_name"
        printf '==> ok: %s (%d s)\n' "$step_name" $((SECONDS - step_start))
    fi
    step_name=
}

note() {
    summary+=("$(printf '%-16s %s' "$1" "$2")")
}

# not_run WHAT WHY: says that a check was left out; the gate goes on, and says so again
# at its end, also of the scripts that it starts.
not_run() {
    printf 'NOT RUN: %s: %s\n' "$1" "$2" | tee -a "${FANFARE_CI_NOTES:-/dev/null}"
}

# missing WHAT WHY: a tool can't be had. In CI that is a failure.
missing() {
    if [[ ${CI:-} == true ]]; then
        die "$1: $2"
    fi
    not_run "$1" "$2"
}

die() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# The trap on EXIT: the summary, and which step failed. A signal may come with
# exit code 0, so passing has to be said.
report() {
    [[ -z $step_name ]] || note "FAILED   $((SECONDS - step_start)) s" "$step_name"
    printf '\n'
    printf '%s\n' "${summary[@]}"
    [[ ! -f ${FANFARE_CI_NOTES:-} ]] || cat "$FANFARE_CI_NOTES"
    if [[ -n $passed ]]; then
        printf '\nThe gate passed in %d s.\n' $((SECONDS - gate_start))
    else
        printf '\nThe gate FAILED after %d s: %s\n' $((SECONDS - gate_start)) \
            "${step_name:-set-up}" >&2
    fi
}
