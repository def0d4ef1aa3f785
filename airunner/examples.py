"""Examples of each command, which end its help. A test parses all of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_ELSEWHERE: Final = "--broker tcp://broker.example.org:7070"
EXAMPLES: Final[Mapping[str, tuple[str, str, str]]] = MappingProxyType(
    {
        "submit": (
            "airunner submit https://github.com/me/app.git -- make test",
            "airunner submit . --queue gpu --timeout 1h -- python train.py",
            "airunner submit -f job.yaml --no-monitor",
        ),
        "run": (
            "airunner run -- echo hello",
            "airunner run . --pty -- make test",
            "airunner run --job 3f2a",
        ),
        "retry": (
            "airunner retry 3f2a",
            "airunner retry @last --no-monitor",
            "airunner retry --queue nightly --state failed",
        ),
        "continue": (
            "airunner continue 3f2a -- python train.py --resume",
            "airunner continue @last --queue gpu -- make report",
            "airunner continue nightly-build --pty -- bash",
        ),
        "cancel": (
            "airunner cancel 3f2a 91bc",
            "airunner cancel @last",
            "airunner cancel --queue nightly --label branch=main",
        ),
        "list": (
            "airunner list --state failed --since 1d",
            "airunner list --label branch=main -n 50",
            "airunner list --queue nightly --all -q",
        ),
        "show": ("airunner show 3f2a", "airunner show @last @last~1", "airunner show nightly-build --json"),
        "explain": ("airunner explain 3f2a", "airunner explain @last", "airunner explain nightly-build"),
        "wait": (
            "airunner wait 3f2a 91bc",
            "airunner wait --any --timeout 10m 3f2a 91bc",
            "airunner wait @last --json",
        ),
        "monitor": (
            "airunner monitor 3f2a",
            "airunner monitor @last --timestamps",
            "airunner monitor 3f2a --playback --speed 4 --idle-max 2s",
        ),
        "logs": (
            "airunner logs 3f2a --tail 20",
            "airunner logs @last -f -t",
            "airunner logs 3f2a --grep 'error|warning' -C 3",
        ),
        "artifacts": (
            "airunner artifacts 3f2a",
            "airunner artifacts @last get 'dist/*.whl' -o out",
            "airunner artifacts 3f2a cat report.xml",
        ),
        "apply": (
            "airunner apply @last",
            "airunner apply 3f2a --branch formatted",
            "airunner apply @last --patch > changes.patch",
        ),
        "artifact put": (
            "airunner artifact put dist",
            "airunner artifact put build.log --as logs/build.txt",
            "airunner artifact put - --as report.txt < out.log",
        ),
        "verify": (
            "airunner verify 3f2a",
            "airunner verify @last --save-head build.head",
            "airunner verify 3f2a --head build.head",
        ),
        "export": (
            "airunner export 3f2a -o job.cast",
            "airunner export @last --format html -o job.html",
            "airunner export 3f2a --format job -o nightly.job",
        ),
        "queues": ("airunner queues", "airunner queues --json", f"airunner queues {_ELSEWHERE}"),
        "top": ("airunner top", "airunner top | head -1", f"airunner top {_ELSEWHERE}"),
        "agents": ("airunner agents", "airunner agents --json", f"airunner agents {_ELSEWHERE}"),
        "brokers": ("airunner brokers", "airunner brokers --json", f"airunner brokers {_ELSEWHERE}"),
        "pause": ("airunner pause nightly", "airunner pause gpu --quiet", f"airunner pause gpu {_ELSEWHERE}"),
        "resume": ("airunner resume nightly", "airunner resume gpu --quiet", f"airunner resume gpu {_ELSEWHERE}"),
        "drain": ("airunner drain nightly", "airunner drain gpu --quiet", f"airunner drain gpu {_ELSEWHERE}"),
        "broker": (
            "airunner broker",
            "airunner broker --listen tcp://0.0.0.0:7070 --advertise broker.example.org",
            "airunner broker --store postgresql://db.example.org/airunner",
        ),
        "orchestrator": (
            "airunner orchestrator --store aws:jobs",
            "airunner orchestrator --store 'aws:jobs?region=eu-central-1&bus=jobs'",
            "airunner orchestrator --store aws:jobs --advertise broker.example.org",
        ),
        "agent": (
            "airunner agent --spawn 4",
            "airunner agent --queue gpu --queue default --tag gpu=a100",
            f"airunner agent {_ELSEWHERE} --drain-timeout 10m",
        ),
        "scale kubernetes": (
            "airunner scale kubernetes --template agent.yaml --queue ci --max 20",
            "airunner scale kubernetes --template gpu.yaml --queue gpu --slots 8 --max 4",
            "airunner scale kubernetes --template ci.yaml --queue ci --max 9 --namespace ci",
        ),
        "scale slurm": (
            "airunner scale slurm --script agent.sh --queue ci --max 20",
            "airunner scale slurm --script agent.sh --queue gpu --tag gpu=a100 --max 4",
            "airunner scale slurm --script agent.sh --queue ci --max 20 --slots 8",
        ),
        "store restore": (
            "airunner store restore jobs.backup",
            "airunner store restore jobs.backup --force",
            "airunner store restore jobs.backup --store sqlite:///srv/jobs.db",
        ),
        "store check": (
            "airunner store check",
            "airunner store check --store sqlite:///srv/backups/jobs.backup",
            "airunner store check --store postgresql://db.example.org/airunner --json",
        ),
        "store copy": (
            "airunner store copy sqlite:///srv/jobs.db postgresql://db.example.org/airunner",
            "airunner store copy postgresql://db.example.org/airunner sqlite:///srv/jobs.db",
            "airunner store copy sqlite:///srv/jobs.db sqlite:///mnt/jobs.db --json",
        ),
        "store init": (
            "airunner store init --store postgresql://owner@db/jobs",
            "airunner store init --store postgresql://owner@db/jobs --grant-to brokers",
            "airunner store init --store postgresql:///airunner",
        ),
        "backup": (
            "airunner backup jobs.backup",
            "airunner backup jobs.backup --force --json",
            "airunner backup jobs.backup --store sqlite:///srv/jobs.db",
        ),
        "up": (
            "airunner up",
            "airunner up --spawn 8",
            "airunner up --listen tcp://127.0.0.1:7170",
        ),
        "down": (
            "airunner down",
            "airunner down --debug",
            "AIRUNNER_HOME=/srv/airunner airunner down",
        ),
        "completion": (
            "airunner completion bash > ~/.local/share/bash-completion/completions/airunner",
            "airunner completion zsh > ~/.zfunc/_airunner",
            "airunner completion fish > ~/.config/fish/completions/airunner.fish",
        ),
        "doctor": (
            "airunner doctor",
            "airunner doctor --json",
            "airunner doctor --store postgresql://db.example.org/airunner",
        ),
        "certs init": (
            "airunner certs init",
            "AIRUNNER_HOME=/srv/airunner airunner certs init",
            "airunner certs init && airunner certs doctor",
        ),
        "certs add": (
            "airunner certs add ada",
            "airunner certs add build-7 --role agent --queue ci",
            "airunner certs add fleet --role broker",
        ),
        "certs list": (
            "airunner certs list",
            "airunner certs list --json",
            "AIRUNNER_HOME=/srv/airunner airunner certs list",
        ),
        "certs revoke": (
            "airunner certs revoke build-7",
            "airunner certs revoke ada",
            "AIRUNNER_HOME=/srv/airunner airunner certs revoke build-7",
        ),
        "certs queue-key": (
            "airunner certs queue-key ci",
            "airunner certs queue-key ci > ci.public",
            "airunner certs queue-key gpu",
        ),
        "certs signers": (
            "airunner certs signers",
            "airunner certs signers > signers",
            "AIRUNNER_HOME=/srv/airunner airunner certs signers",
        ),
        "certs doctor": (
            "airunner certs doctor",
            "airunner certs doctor --json",
            "airunner certs doctor --token-file /srv/airunner/token",
        ),
        "certs export": (
            "airunner certs export build-7 --output build-7.keys",
            "airunner certs export build-7 | ssh build-7 'umask 77; cat > build-7.keys'",
            "airunner certs export fleet --output fleet.keys",
        ),
        "certs import": (
            "airunner certs import build-7.keys",
            "airunner certs import build-7.keys --force",
            "AIRUNNER_HOME=/srv/airunner airunner certs import fleet.keys",
        ),
        "config show": (
            "airunner config show",
            "airunner config show --all",
            "airunner config show --cluster prod",
        ),
        "config list": (
            "airunner config list",
            "airunner config list --json",
            "AIRUNNER_CLUSTER=prod airunner config list",
        ),
        "config use": (
            "airunner config use prod",
            "airunner config use local",
            "airunner config use prod --debug",
        ),
        "config set": (
            "airunner config set queue ci",
            "airunner config set clusters.prod.broker tcp://broker.example.org:7070",
            "airunner config set clusters.prod.home prod",
        ),
        "config unset": (
            "airunner config unset cluster",
            "airunner config unset queue",
            "airunner config unset clusters.prod.queue",
        ),
        "web": (
            "airunner web",
            "airunner web --listen 127.0.0.1:9000",
            "airunner web --listen 127.0.0.1:8090 --public-url https://ci.example.org",
        ),
        "login-link": (
            "airunner login-link",
            "airunner login-link --ttl 1h --role read",
            "airunner login-link --subject ada --public-url https://ci.example.org",
        ),
        "token": (
            "airunner token --subject ada",
            "airunner token --subject ci --role submit,read --ttl 7d",
            "airunner token --subject deploy --role submit,read --queue ci --cache release",
        ),
        "cache list": ("airunner cache list", "airunner cache list go --queue ci", "airunner cache list --json"),
        "cache show": ("airunner cache show go", "airunner cache show go --key 5ac1", "airunner cache show go --json"),
        "cache rm": (
            "airunner cache rm go",
            "airunner cache rm go --queue ci --label release",
            "airunner cache rm go --key 5ac1 --quiet",
        ),
        "secret set": (
            "airunner secret set API_TOKEN --queue ci",
            "airunner secret set API_TOKEN < token.txt",
            "airunner secret set DEPLOY_KEY --queue ci --from-file id_ed25519",
        ),
        "secret list": ("airunner secret list", "airunner secret list --queue ci", "airunner secret list --json"),
        "secret rm": (
            "airunner secret rm API_TOKEN",
            "airunner secret rm API_TOKEN --queue ci",
            "airunner secret rm DEPLOY_KEY --queue ci --quiet",
        ),
    }
)
