#!/bin/sh
# Keys of the fleet in $FLEET, a home for each of the BROKERS and AGENTS in $HOMES; run again, it only renews tokens.
set -eu
umask 077
export AIRUNNER_HOME="$FLEET"
airunner certs init
# Brokers connect to each other with the fleet's own key, which has to be on the allow-list like any other.
if ! grep -qw fleet "$FLEET/certs/allowed-clients"; then
    airunner certs add fleet --role broker
fi
for broker in $BROKERS; do # each has its own home, for its id; the keys are the same
    mkdir -p "$HOMES/$broker"
    ln -sfn "$FLEET/certs" "$HOMES/$broker/certs"
done
for agent in $AGENTS; do # has its own key and token, and not the key that signs tokens
    if [ ! -e "$HOMES/$agent/certs/client.secret" ]; then
        [ -e "$FLEET/certs/clients/$agent.secret" ] || airunner certs add "$agent" --role agent --queue default
        rm -f "$HOMES/$agent.keys"
        airunner certs export "$agent" --output "$HOMES/$agent.keys"
        AIRUNNER_HOME="$HOMES/$agent" airunner certs import "$HOMES/$agent.keys"
        rm "$HOMES/$agent.keys"
    fi
    airunner token --subject "$agent" --role work --queue default --ttl 30d > "$HOMES/$agent/token.new"
    mv "$HOMES/$agent/token.new" "$HOMES/$agent/token" # the running agent reads it again
done
