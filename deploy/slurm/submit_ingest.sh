#!/bin/bash
# Submit an ingest and its commit: SOURCE=s3://archives/TerraMesh BANK=s3://bank TABLE=terramesh deploy/slurm/submit_ingest.sh [--array=0-63]
# Arguments go to sbatch. The commit runs when all tasks have ended, however they did, and names those that have not finished.
set -euo pipefail
: "${SOURCE:?set SOURCE to the folder or URL of the archives}" "${BANK:?set BANK to the URL of the bank}" "${TABLE:?set TABLE}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

ingest=$(sbatch --parsable "$@" "$here/ingest.sbatch")
commit=$(sbatch --parsable --dependency="afterany:${ingest%%;*}" "$here/commit.sbatch")
echo "ingest ${ingest%%;*}, commit ${commit%%;*}"
