#!/bin/sh
# Make the secrets of docker-compose.yml: `deploy/make-secrets.sh [FOLDER]` (default: ./secrets).
#
# What exists is kept, so it may run again after an upgrade that needs a new one. The folder is closed to everybody but
# its owner (0700); the files in it can be read (0644), because a container's user, which has another id, sees only the
# files that compose hands to it. No file ends with a newline: it would become part of the secret.
set -eu

folder=${1:-secrets}
umask 077
mkdir -p "$folder"
chmod 0700 "$folder"

# Write standard input to the secret named $1, unless it exists. Whole or not at all.
keep() {
    if [ -e "$folder/$1" ]; then
        cat >/dev/null
        echo "kept     $folder/$1"
    else
        cat >"$folder/$1.new"
        chmod 0644 "$folder/$1.new"
        mv "$folder/$1.new" "$folder/$1"
        echo "created  $folder/$1"
    fi
}

# $1 random bytes, in hexadecimal.
hex() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

hex 32 | keep secret_key
# The keys before it, with commas between: empty at first.
printf '' | keep secret_key_fallbacks
# A Fernet key: 32 bytes in URL-safe base64. To rotate, put a new one in front, with a comma between.
head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' | keep encryption_keys

hex 24 | keep postgres_password
printf 'postgres://banyan:%s@postgres:5432/banyan' "$(cat "$folder/postgres_password")" | keep database_url

# Valkey reads its password from a configuration file, so that it shows in no process list.
printf 'requirepass %s' "$(hex 24)" | keep valkey.conf
printf 'redis://:%s@redis:6379/0' "$(sed 's/^requirepass //' "$folder/valkey.conf")" | keep redis_url

# The key of the upstream that new tenants get first; empty unless you write one into it.
printf '' | keep openai_api_key

# The mail server for alerts. As it stands mail is printed by the worker; .env.example says what to write instead.
printf 'consolemail://' | keep email_url

echo "Now name this folder in .env: BANYAN_SECRETS=$(cd "$folder" && pwd)"
