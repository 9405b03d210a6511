# Backups in S3, and a move to it.
# shellcheck shell=bash

echo "== S3"
if [[ ! -x $garage ]]; then
    echo "skipped: full/keep/s3: $no_garage"
    return 0
fi
start_garage
s3() { echo "s3://$bucket/$1"; }
from=$work/restored-pruned
check "a backup goes to S3" quiet registry backup --data "$from" --to "$(s3 backups)"
check "and comes back, sound" eval 'quiet registry restore --from "$(s3 backups)" --data "$work/from-s3" && sound --data "$work/from-s3"'
if [[ -n ${FINELINE_TEST_POSTGRES:-} ]]; then
    psql --quiet "${FINELINE_TEST_POSTGRES/\{database\}/postgres}" -c 'CREATE DATABASE in_s3'
    url=${FINELINE_TEST_POSTGRES/\{database\}/in_s3}
else
    url=sqlite://$work/in-s3.db
fi
FINELINE_KILL_AT=move.departed check "move.departed: the move to S3 died there" killed "$bin/fineline-registry" move \
    --data "$from" --database "$url" --store "$(s3 store)"
check "the same command ends it" quiet registry move --data "$from" --database "$url" --store "$(s3 store)"
check "the new place is sound" sound --data "$work/served-s3" --database "$url" --store "$(s3 store)"
again s3 --database "$url" --store "$(s3 store)"
