#!/usr/bin/env bash
# Waits until Traefik serves every file of its dynamic directory as it is now, at most $1 seconds. Each of our files has a route whose path names
# its content. One file that cannot be parsed keeps Traefik from taking over any of them; it goes on with what it had and says so only in its log.
cd /etc/traefik/dynamic || exit

answers() {
  local status=
  exec 3<>/dev/tcp/127.0.0.1/9080 || return
  printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
  read -r -t 5 status <&3
  exec 3>&-
  [[ $status == *' 200 '* ]]
}

deadline=$((SECONDS + $1))
while :; do
  late=() foreign=()
  for file in *.yml *.yaml *.toml; do
    [[ -e $file ]] || continue
    route=$(grep -om1 '/revision/[a-z0-9-]*/[0-9a-f]*' "$file") || { foreign+=("$file"); continue; }
    answers "$route" || late+=("$file")
  done
  ((${#late[@]})) || exit 0
  ((SECONDS < deadline)) || break
  sleep 0.2
done
echo "Traefik goes on without ${late[*]}; docker compose -p traefik logs --since 5m | grep '\"level\":\"error\"' says why" >&2
((${#foreign[@]})) && echo "somebody put ${foreign[*]} into config/dynamic: is it valid?" >&2
exit 1
