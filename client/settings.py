"""Settings of `$AIRUNNER_HOME/config.yaml`: values of environment variables, for all clusters and for the chosen one.

```yaml
cluster: prod               # chosen unless --cluster or AIRUNNER_CLUSTER names another
connect-timeout: 20s        # AIRUNNER_CONNECT_TIMEOUT, and so on: each option's name, without its dashes
clusters:
  prod:
    broker: [tcp://broker-a.example.org:7070, tcp://broker-b.example.org:7070]
    home: prod              # folder with the keys for this cluster, beside this file
    server-key: 'rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7'
    queue: ci
  local: {}                 # this machine's, of `airunner up`
```

A setting is the value of its variable where the environment has none, so that an option overrides the environment, and
the environment overrides the file; in the file the chosen cluster overrides what stands above `clusters`. PyYAML is
imported only if there is a file.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airunner.certs.home import Home
from airunner.client.localcluster import State
from airunner.protocol.errors import EXIT_NO_SUCH, OperatorError

if TYPE_CHECKING:
    import yaml

PREFIX: Final = "AIRUNNER_"
HOME: Final = "AIRUNNER_HOME"
CLUSTER: Final = "AIRUNNER_CLUSTER"
FILE: Final = "AIRUNNER_CONFIG_FILE"  # path of another file than config.yaml in the home
FILE_BYTES_MAX: Final = 65_536
_BROKER: Final = "AIRUNNER_BROKER"
NAMES: Final = frozenset(
    # settings: written by `make docs`
    """
    advertise agent-name allow-local allow-scheme artifact artifact-gib artifact-required as auth blob-gib blobs
    broker cache cache-gib cancel-grace cancel-on-exit cancel-signal cluster columns connect-timeout debug depth
    disconnect-after-idle disconnect-after-job dissociate drain-timeout events expires flush-interval flush-kib
    fsck hooks http idle-max include-ignored interval job json jwt-public-key keep keep-every limit listen
    log-mib-max machine-connections max max-attempts memory-max-mib merge-output metadata metrics-tenant
    mirror-gib monitor namespace no-redact oidc-client-id oidc-client-secret-file oidc-groups-claim oidc-issuer
    oidc-map oidc-scope oidc-subject-claim oidc-tenant on-interrupt owner pids-max priority process-type
    public-url queue quiet raw redact require reserve-mib retain-days retain-gib retry retry-backoff retry-on
    return run-as safe-directory script signers signing-key slots spawn speed spool-gib start-timeout stdin store
    store-gib submodules tag tail template tenant-gib tenant-requests tenant-waiting tenant-watched terminal
    timeout timestamps token token-file tree ttl visibility-timeout web web-listen
    """.split()  # noqa: SIM905 - words
    # end of settings
)
"""Names of settings: those of the options with a variable."""
CLIENT_NAMES: Final = frozenset(("server-key", "tenant", "token-file"))
"""Names of settings that every client reads, by an option or without one."""
NOT_HERE: Final = {
    "token": "a token is secret: write it to a file (mode 0600), and name that with `token-file`",
    "home": "the folder of this file is the home; a cluster may have another",
}


class Setting(NamedTuple):
    """Setting of the file: its value as in the environment, and its line."""

    value: str
    line: int


class Config(NamedTuple):
    """Content of the file: the name of the chosen cluster, settings of all clusters, and settings by cluster."""

    path: Path
    cluster: Setting | None
    settings: Mapping[str, Setting]
    clusters: Mapping[str, Mapping[str, Setting]]


class Configured(NamedTuple):
    """Environment with the settings of the file, and for each variable from there the place in the file."""

    environ: Mapping[str, str]
    origins: Mapping[str, str]


def variable_of(name: str) -> str:
    """Return the variable of a setting: `AIRUNNER_CONNECT_TIMEOUT` of `connect-timeout`."""
    return f"{PREFIX}{name.upper().replace('-', '_')}"


def config_path(environ: Mapping[str, str]) -> Path:
    """Return the path of the file, which need not exist. Raises `OperatorError`: this user has no home."""
    return Path(environ.get(FILE) or Home.from_environment(environ).root / "config.yaml").absolute()


def configured(environ: Mapping[str, str], cluster: str = "") -> Configured:
    """Return `environ` with the settings of the file, of `cluster` or of the one that the environment or file chooses.

    A broker that nothing names is that of the home's local cluster, if that runs. Applying it twice changes nothing.
    Raises `OperatorError`: the file has a fault, or no such cluster.
    """
    found = _with_file(environ, cluster)
    if found.environ.get(_BROKER):
        return found
    try:
        running = State(Home.from_environment(found.environ).root).running()
    except OperatorError:
        return found  # `airunner run` needs no home
    if running is None:
        return found
    here = {_BROKER: "the cluster that `airunner up` has started: broker"}
    return Configured({**found.environ, _BROKER: running.broker}, {**found.origins, **here})


def _with_file(environ: Mapping[str, str], cluster: str) -> Configured:
    try:
        path = config_path(environ)
    except OperatorError:
        return Configured(environ, {})  # `airunner run` needs no home
    named = cluster or environ.get(CLUSTER, "")
    if not is_there(path):
        if named:
            raise no_cluster(path, named, ())
        return Configured(environ, {})
    config = read_config(path)
    chosen = named or (config.cluster.value if config.cluster is not None else "")
    if chosen and chosen not in config.clusters:
        at = "" if named or config.cluster is None else f", line {config.cluster.line}"
        raise no_cluster(path, chosen, config.clusters, at)
    found = {**config.settings, **config.clusters.get(chosen, {})}
    if environ.get(variable_of("token")):
        found.pop("token-file", None)
    origins: dict[str, str] = {}
    result = {**environ, FILE: str(path)}
    if chosen:
        result[CLUSTER] = chosen
    if home := found.pop("home", None):
        result[HOME] = str(path.parent / Path(home.value).expanduser())
        origins[HOME] = f"{path}, line {home.line}: home"
    for name, setting in found.items():
        if not environ.get(variable := variable_of(name)):
            value = setting.value  # ~ is a path's in a file, as in a shell
            result[variable] = str(Path(value).expanduser()) if value.startswith("~/") else value
            origins[variable] = f"{path}, line {setting.line}: {name}"
    return Configured(result, origins)


def is_there(path: Path) -> bool:
    """Return whether there is a file; a path that cannot be one has none."""
    try:
        return path.exists()
    except OSError:
        return False


def no_cluster(path: Path, name: str, names: Mapping[str, object] | tuple[()], at: str = "") -> OperatorError:
    """Return the error that the file describes no cluster of this name."""
    known = f"it has {', '.join(names)}" if names else "it has none"
    remedy = f"`airunner config set clusters.{shlex.quote(name)}.broker tcp://HOST:PORT` adds it"
    message = f"there is no cluster {name!r} in {path}{at}: {known}; {remedy}"
    return OperatorError(message, exit_code=EXIT_NO_SUCH)


def read_config(path: Path) -> Config:
    """Read the file. Raises `OperatorError`, which names the line."""
    from airunner.certs.ownership import OTHERS_WRITE, unsafe_status_reason

    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if reason := unsafe_status_reason(path.stat(), path, str(path), OTHERS_WRITE, "make it your own"):
            raise OperatorError(reason)
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise OperatorError(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    try:
        return parse_config(content.decode(), path)
    except UnicodeDecodeError as error:
        raise OperatorError(f"{path} is not text in UTF-8") from error


def parse_config(text: str, path: Path) -> Config:
    """Parse the text of the file; errors call it `path`. Raises `OperatorError`."""
    root = compose(text, path)
    settings: dict[str, Setting] = {}
    clusters: dict[str, Mapping[str, Setting]] = {}
    for key, value in _entries(root, path):
        if key.value != "clusters":
            if key.value in NOT_HERE:
                raise _fault(path, key, f"{key.value} is no setting of this file: {NOT_HERE[key.value]}")
            settings |= _setting(key, value, path, {"cluster"})
            continue
        for name, entries in _entries(value, path):
            own: dict[str, Setting] = {}
            for inner, setting in _entries(entries, path):
                if inner.value == "token":
                    raise _fault(path, inner, f"token is no setting of this file: {NOT_HERE['token']}")
                own |= _setting(inner, setting, path, {"home"})
            clusters[name.value] = own
    return Config(path, settings.pop("cluster", None), settings, clusters)


def compose(text: str, path: Path) -> yaml.Node | None:
    """Compose the nodes of a YAML text; None: it is empty. Raises `OperatorError`."""
    import yaml

    try:
        return yaml.compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise OperatorError(f"{path}, line {line}: this is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise OperatorError(f"{path}: this is not YAML: {str(error).splitlines()[0]}") from error


def _entries(node: yaml.Node | None, path: Path) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """Yield the keys and values of a mapping, or nothing of an empty value. Raises `OperatorError`."""
    import yaml

    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        return
    if not isinstance(node, yaml.MappingNode):
        raise _fault(path, node, "expected names and values, such as `queue: ci`")
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _fault(path, key, "a name is text, not a list or a mapping")
        if key.value in seen:
            raise _fault(path, key, f"{key.value} is here a second time")
        seen.add(key.value)
        yield key, value


def _setting(key: yaml.ScalarNode, value: yaml.Node, path: Path, more: set[str]) -> dict[str, Setting]:
    """Read a setting; nothing for one without a value. Raises `OperatorError`: unknown, or not text or a list."""
    import yaml

    if key.value not in (known := {*NAMES, *CLIENT_NAMES, *more} - {"token"}):
        raise _fault(path, key, unknown_setting(key.value, known))
    items: list[Any] = value.value if isinstance(value, yaml.SequenceNode) else [value]
    if not all(isinstance(item, yaml.ScalarNode) for item in items):
        raise _fault(path, value, f"{key.value}: expected text, a number, true or false, or a list of such")
    if isinstance(value, yaml.SequenceNode):
        return {key.value: Setting(shlex.join(item.value for item in items), value.start_mark.line + 1)}
    text = "" if value.tag.endswith(":null") else str(value.value)
    return {key.value: Setting(text, value.start_mark.line + 1)} if text else {}


def unknown_setting(name: str, known: set[str]) -> str:
    """Return the message that there is no setting of this name, with the nearest that there is."""
    from difflib import get_close_matches

    near = get_close_matches(name.replace("_", "-").lower(), known, 1)
    return f"unknown setting {name!r}; " + (
        f"did you mean {near[0]}?" if near else "`airunner config show --all` lists all"
    )


def _fault(path: Path, node: yaml.Node, problem: str) -> OperatorError:
    return OperatorError(f"{path}, line {node.start_mark.line + 1}: {problem}")
