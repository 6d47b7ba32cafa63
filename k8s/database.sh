#!/bin/sh
# Save or restore the SQLite file of the chart's Prefect server (PostgreSQL has pg_dump and pg_restore):
#   sh k8s/database.sh save prefect.db       a whole copy, while the server works
#   sh k8s/database.sh restore prefect.db    stops the server, puts the file in its place, starts it
# KUBE_CONTEXT, KUBE_NAMESPACE (em) and RELEASE (macroscope) say where.
set -eu
what="${1:?save or restore}"
file="${2:?which file}"
. "$(dirname "$0")/claim-pod.sh"
part="$component=server"
server="$(kube get deployment -l "$part" -o name)"
claim="$(kube get persistentvolumeclaim -l "$part" -o 'jsonpath={.items[0].metadata.name}')"
there=/var/lib/prefect/prefect.db

if [ "$what" = save ]; then
  kube exec "$server" -- sh -c "rm -f /tmp/copy.db && python -c \"
import sqlite3
sqlite3.connect('$there').execute('VACUUM INTO ?', ['/tmp/copy.db'])\" && cat /tmp/copy.db && rm /tmp/copy.db" > "$file.new"
  mv "$file.new" "$file"
  exit
fi
[ "$what" = restore ] || { echo "usage: database.sh save|restore FILE" >&2; exit 2; }
[ "$(head -c 15 "$file")" = "SQLite format 3" ] || { echo "$file is no SQLite database" >&2; exit 2; }
as_pods_of "$server"
pod="database-$$"
kube scale "$server" --replicas=0
trap 'kube delete pod "$pod" --ignore-not-found --wait=true > /dev/null; kube scale "$server" --replicas=1' EXIT INT TERM
kube wait --for=delete pod -l "$part" --timeout=120s

claim_pod "$pod" "$claim" /var/lib/prefect
# what SQLite keeps beside a database belongs to the one that goes
kube exec -i "$pod" -- sh -c "cat > $there.new && rm -f $there-wal $there-shm && mv $there.new $there" < "$file"
echo "$file is the database of $server"
