"""Access to a Kubernetes API server: its address, certificates, token and namespace.

They come from a kubeconfig file that is named, from the service account of the pod that this process runs in, or from
~/.kube/config. A token file is read for each request, since Kubernetes renews it.
"""

from __future__ import annotations

import ssl
import tempfile
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct, field

from airunner.protocol.errors import OperatorError

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FILE_BYTES_MAX: Final = 1_048_576  # of a kubeconfig file or a template: etcd takes no larger object
DEFAULT_NAMESPACE: Final = "default"


class Access(Struct, frozen=True):
    """Access to the API server at `url`; `ssl` is None only for a server without TLS on this machine."""

    url: str
    namespace: str
    ssl: ssl.SSLContext | None = None
    token: str = ""
    token_file: Path | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers that authenticate a request. Raises `OperatorError`: the token file cannot be read."""
        token = self.token if self.token_file is None else _read(self.token_file).strip()
        return {"Authorization": f"Bearer {token}"} if token else {}


class _Cluster(Struct, rename="kebab"):
    server: str
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False


class _User(Struct, rename="kebab"):
    token: str = ""
    token_file: str = field(default="", name="tokenFile")
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    exec: Any = None
    auth_provider: Any = None


class _Context(Struct):
    cluster: str
    user: str
    namespace: str = DEFAULT_NAMESPACE


class _NamedCluster(Struct):
    name: str
    cluster: _Cluster


class _NamedUser(Struct):
    name: str
    user: _User


class _NamedContext(Struct):
    name: str
    context: _Context


class _Kubeconfig(Struct, rename="kebab"):
    current_context: Annotated[str, Meta(min_length=1)]
    clusters: list[_NamedCluster]
    contexts: list[_NamedContext]
    users: list[_NamedUser] = []


def find_access(kubeconfig: Path | None, environ: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> Access:
    """Find the access to use; `account` is the folder of a pod's service account. Raises `OperatorError`."""
    usual = Path(environ.get("HOME", "/")) / ".kube" / "config"
    if kubeconfig is not None:
        return _from_kubeconfig(kubeconfig)
    if host := environ.get("KUBERNETES_SERVICE_HOST"):
        return Access(
            url=f"https://{f'[{host}]' if ':' in host else host}:{environ.get('KUBERNETES_SERVICE_PORT', '443')}",
            namespace=_read(account / "namespace").strip(),
            ssl=_trusting(account / "ca.crt", ""),
            token_file=account / "token",
        )
    if usual.is_file():
        return _from_kubeconfig(usual)
    raise OperatorError("there is no Kubernetes cluster: run this in a pod, or name a file with --kubeconfig")


def _from_kubeconfig(path: Path) -> Access:
    import yaml

    try:
        config = msgspec.convert(yaml.safe_load(_read(path)), _Kubeconfig)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise OperatorError(f"{path} is no kubeconfig file that can be used: {' '.join(str(error).split())}") from error
    contexts = {named.name: named.context for named in config.contexts}
    clusters = {named.name: named.cluster for named in config.clusters}
    users = {named.name: named.user for named in config.users}
    context = contexts.get(config.current_context)
    cluster = clusters.get(context.cluster) if context else None
    user = users.get(context.user) if context else None
    if context is None or cluster is None or user is None:
        raise OperatorError(f"{path}: the context {config.current_context!r}, its cluster or its user is missing in it")
    if user.exec is not None or user.auth_provider is not None:
        raise OperatorError(
            f"{path}: the user {context.user!r} is authenticated by another program, which is not supported: run this "
            "in a pod, or give the user a token (kubectl create token)"
        )
    return Access(
        url=cluster.server.rstrip("/"),
        namespace=context.namespace,
        ssl=_tls(path, cluster, user),
        token=user.token,
        token_file=path.parent / user.token_file if user.token_file else None,
    )


def _tls(path: Path, cluster: _Cluster, user: _User) -> ssl.SSLContext | None:
    server = urlsplit(cluster.server)
    if server.scheme == "http" and server.hostname in {"localhost", "127.0.0.1", "::1"}:  # as `kubectl proxy` serves
        return None
    if server.scheme != "https" or cluster.insecure_skip_tls_verify:
        raise OperatorError(f"{path}: {cluster.server} has to be https, with a certificate that is verified")
    context = _trusting(
        path.parent / cluster.certificate_authority if cluster.certificate_authority else None,
        _decoded(path, cluster.certificate_authority_data),
    )
    certificate, key = user.client_certificate_data, user.client_key_data
    try:
        if certificate and key:
            with tempfile.NamedTemporaryFile("w") as pem:  # of mode 0600; OpenSSL reads only files
                pem.write(_decoded(path, certificate) + _decoded(path, key))
                pem.flush()
                context.load_cert_chain(pem.name)
        elif user.client_certificate and user.client_key:
            context.load_cert_chain(path.parent / user.client_certificate, path.parent / user.client_key)
    except (OSError, ssl.SSLError) as error:
        raise OperatorError(f"{path}: the client certificate or its key cannot be used: {error}") from error
    return context


def _trusting(authority: Path | None, pem: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authority, cadata=pem or None)
    except (OSError, ssl.SSLError) as error:
        source = authority or "certificate-authority-data"
        raise OperatorError(f"{source}: the certificate of the cluster's authority cannot be used: {error}") from error


def _decoded(path: Path, data: str) -> str:
    try:
        return b64decode(data, validate=True).decode("ascii")
    except (Base64Error, UnicodeDecodeError) as error:
        raise OperatorError(f"{path}: its certificates are not PEM in base64") from error


def _read(path: Path) -> str:
    """Read a small file of text. Raises `OperatorError`."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX).decode()
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OperatorError(f"{path} is not text in UTF-8") from error
