#!/bin/sh
# NAME_FILE=/run/secrets/file becomes NAME=<what is in the file>, for secrets that service.toml wants in a variable.
# Variables that name other files (SSL_CERT_FILE) stay as they are.
set -eu
folder=${SECRETS_FOLDER:-/run/secrets}
for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)_FILE=.*/\1/p'); do
    eval "file=\${${name}_FILE:-}"
    case $file in
    "$folder"/*)
        if [ ! -r "$file" ]; then
            echo "entrypoint: ${name}_FILE: $file cannot be read by user $(id -u)" >&2
            exit 2
        fi
        value=$(cat "$file")
        export "$name=$value"
        unset "${name}_FILE"
        ;;
    esac
done
exec "$@"
