#!/usr/bin/env bash
# Waits until Traefik has a certificate from the ACME server for each domain: issued.sh FILE SECONDS DOMAIN…, FILE being where Traefik keeps them.
# Prints the domains that had to be waited for. Traefik asks when its configuration changes, and not again by itself when that failed; so where one
# is missing, its configuration is changed: by a route that nobody uses, gone again at the end.
file=$1 seconds=$2
shift 2

missing() {
  for domain; do
    grep -qsF "\"$domain\"" "$file" || echo "$domain"
  done
}

complaints() { docker compose --project-name traefik logs --no-log-prefix --since "$since" traefik | grep '"level":"error"' | grep -i acme; }

refused() {
  local said domain
  said=$(complaints)
  for domain; do
    [[ $said == *"$domain"* ]] || return
  done
}

mapfile -t wanted < <(missing "$@")
((${#wanted[@]})) || exit 0
since=$(date +%s)
nudge=${BASH_SOURCE[0]%/*}/dynamic/ask-again.yml
# Traefik's user reads it, also where root's files are for root alone.
umask 022
trap 'rm -f "$nudge"' EXIT
printf "http: {routers: {ask-again: {entryPoints: [internal], rule: 'Path(\"/ask-again/%s\")', service: ping@internal}}}\n" "$since" >"$nudge"
while ((SECONDS < seconds)); do
  mapfile -t late < <(missing "${wanted[@]}")
  ((${#late[@]})) || { echo "issued: ${wanted[*]}"; exit 0; }
  ! refused "${late[@]}" || break
  sleep 1
done
{
  echo "No certificate for ${late[*]} after $SECONDS s; what was served before is served still."
  complaints | tail -n 3
  echo "Does the domain lead to this host, and does the ACME server answer? Then ansible-playbook -i <inventory> berth.odoo.site asks again."
} >&2
exit 1
