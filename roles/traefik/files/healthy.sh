#!/bin/bash
# Succeeds when Traefik answers and serves every file of its dynamic directory as it is now. Each file has a route whose path names its
# content; a file that Traefik cannot parse stops it from taking over any, and it says so only in its log.
#   healthy.sh            once, as health check
#   healthy.sh SECONDS    until it is so, at most that long
answers() {
  local status
  exec 3<>/dev/tcp/127.0.0.1/9080 || return
  printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
  read -r -t 5 status <&3
  exec 3>&-
  [[ $status == *' 200 '* ]]
}

in_force() {
  local file route
  answers /ping 2>/dev/null || { problem='does not answer on its internal entry point'; return 1; }
  for file in /etc/traefik/dynamic/*.yml; do
    route=$(grep -om1 '/revision/[a-z0-9-]*/[0-9a-f]*' "$file") || { problem="$file is not ours"; return 1; }
    answers "$route" || { problem="$file is not in force: its log says why"; return 1; }
  done
}

for ((deadline = SECONDS + ${1:-0}; ; )); do
  in_force && exit 0
  ((SECONDS < deadline)) || break
  sleep 0.2
done
echo "Traefik $problem" >&2
exit 1
